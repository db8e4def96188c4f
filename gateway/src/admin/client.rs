//! The way to a running gateway: its admin API on the socket in its data folder.

use hyper_util::rt::TokioIo;
use liaison_proto::{
    admin::v1::admin_service_client::AdminServiceClient,
    limits,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::{data::DataFolder, limits::ADMIN_MESSAGE_BYTES};

/// Connects to the gateway that runs on this data folder.
///
/// # Errors
/// `gateway_unreachable` where none does.
pub async fn connect(folder: &DataFolder) -> Result<AdminServiceClient<Channel>, Refusal> {
    let socket = folder.admin_socket();
    let path = socket.clone();
    // The connector decides where to; the address only has to be well formed.
    let channel = Endpoint::from_static("http://admin")
        .timeout(limits::REQUEST)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|_| {
            Refusal::new(
                ErrorCode::GatewayUnreachable,
                format!("no gateway answers on {}", socket.display()),
                "start it with `liaison-gateway run` as the user that owns its data folder, or name the folder with --data",
            )
        })?;
    Ok(AdminServiceClient::new(channel)
        .max_encoding_message_size(ADMIN_MESSAGE_BYTES)
        .max_decoding_message_size(ADMIN_MESSAGE_BYTES))
}
