//! The way to a running gateway: its admin API on the socket in its data folder.

use hyper_util::rt::TokioIo;
use liaison_proto::{admin::v1::admin_service_client::AdminServiceClient, limits, message::v1::Refusal};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::Failure;
use crate::data::DataFolder;

/// Connects to the gateway that runs on this data folder.
pub(super) async fn connect(folder: &DataFolder) -> Result<AdminServiceClient<Channel>, Failure> {
    let socket = folder.admin_socket();
    let asleep = |_| {
        Failure::failed(
            "gateway_unreachable",
            format!("no gateway answers on {}", socket.display()),
            "start it with `liaison-gateway run`, as the user that owns its data folder, or name the folder with --data",
        )
    };
    let path = socket.clone();
    // The connector decides where to; the address only has to be well formed.
    let channel = Endpoint::from_static("http://admin")
        .timeout(limits::REQUEST)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(asleep)?;
    Ok(AdminServiceClient::new(channel)
        .max_encoding_message_size(crate::limits::ADMIN_MESSAGE_BYTES)
        .max_decoding_message_size(crate::limits::ADMIN_MESSAGE_BYTES))
}

/// What the gateway refused, as an error of the command.
pub(super) fn refused(status: Status) -> Refusal {
    Refusal::from(&status)
}
