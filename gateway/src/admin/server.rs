//! The socket of the admin API: only the gateway's own user can open it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use liaison_proto::{
    DESCRIPTORS,
    admin::v1::admin_service_server::AdminServiceServer,
    limits::{HTTP2_HEADER_BYTES, HTTP2_STREAMS, REQUEST},
};
use tokio::net::UnixListener;
use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::Admin;
use crate::{data::PRIVATE_FILE, limits, strict::Strict};

/// The socket, open, with nobody answering yet. It goes when this is dropped.
#[derive(Debug)]
pub struct Listening {
    listener: Option<UnixListener>,
    path: PathBuf,
}

/// Why the admin API can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{} is no socket; move it away", .0.display())]
    Occupied(PathBuf),
    #[error("{} can't be opened ({source}); the gateway's user must own its data folder, and the path be shorter than 108 bytes", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the admin API failed")]
    Server(#[from] tonic::transport::Error),
    #[error("the admin API can't describe itself")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Opens the socket. One that is there is what a crash left, and goes: the caller holds the folder's
/// lock, so that nobody else answers on it.
///
/// # Errors
/// It can't be made.
pub fn listen(path: &Path) -> Result<Listening, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::Occupied(path.to_owned()));
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(_) => {}
    }
    // The data folder lets nobody else in, so that the socket is never open to others, not even
    // before its own mode is set.
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_FILE)).map_err(failed)?;
    Ok(Listening { listener: Some(listener), path: path.to_owned() })
}

impl Listening {
    /// Answers until the gateway stops.
    ///
    /// # Errors
    /// The server failed.
    pub async fn serve(
        mut self,
        admin: Admin,
        stop: CancellationToken,
        health: HealthServer<impl Health>,
    ) -> Result<(), SocketError> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let admin = AdminServiceServer::new(admin)
            .max_decoding_message_size(limits::ADMIN_MESSAGE_BYTES)
            .max_encoding_message_size(limits::ADMIN_MESSAGE_BYTES);
        let admin = Strict::new(admin, limits::ADMIN_MESSAGE_BYTES);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .with_service_name("liaison.admin.v1.AdminService")
            .build_v1()?;
        // A failed accept must not end the server.
        let incoming = UnixListenerStream::new(listener).filter(Result::is_ok);
        Server::builder()
            .max_concurrent_streams(HTTP2_STREAMS)
            .http2_max_header_list_size(HTTP2_HEADER_BYTES)
            .timeout(REQUEST)
            .add_service(admin)
            .add_service(reflection)
            .add_service(health)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await?;
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may be gone already; a leftover is removed at the next start.
        _ = fs::remove_file(&self.path);
    }
}
