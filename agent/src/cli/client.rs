//! Commands that ask the running agent, over its own gRPC API and with its own token.

use anyhow::Context as _;
use liaison_proto::{case::v1::case_service_client::CaseServiceClient, limits as wire, message::v1::Refusal};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use zeroize::Zeroizing;

use crate::{
    case::caller::ACTOR,
    config::Config,
    folder::{self, Folder},
};

/// The case API of the running agent.
pub(crate) type Client = CaseServiceClient<InterceptedService<Channel, Credentials>>;

/// Connects to the agent whose data folder it is.
pub(crate) async fn connect(folder: &Folder) -> anyhow::Result<Client> {
    let config = Config::load(folder)?;
    let token = Zeroizing::new(folder::read_text(&folder.api_token())?);
    let channel = Endpoint::from_shared(format!("http://{}", config.grpc))?
        .connect_timeout(wire::TLS_HANDSHAKE)
        .timeout(wire::REQUEST)
        .connect()
        .await
        .with_context(|| format!("no agent answers at {}; start it with `liaison-agent run`", config.grpc))?;
    let mut authorization: MetadataValue<_> = Zeroizing::new(format!("Bearer {}", token.trim()))
        .parse()
        .context("the file api-token holds no token")?;
    authorization.set_sensitive(true);
    let user = std::env::var("USER").unwrap_or_default();
    let actor = format!("command line {user}").trim().parse().context("the name of the user is not ASCII")?;
    Ok(CaseServiceClient::with_interceptor(channel, Credentials { authorization, actor })
        .max_decoding_message_size(wire::ENVELOPE_BYTES)
        .max_encoding_message_size(wire::CASE_REQUEST_BYTES))
}

/// What the agent answered, as an error of the command where it refused.
pub(crate) fn refused(status: &Status) -> anyhow::Error {
    Refusal::from(status).into()
}

/// The headers that every call carries.
#[derive(Clone)]
pub(crate) struct Credentials {
    authorization: MetadataValue<tonic::metadata::Ascii>,
    actor: MetadataValue<tonic::metadata::Ascii>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request.metadata_mut().insert(ACTOR, self.actor.clone());
        Ok(request)
    }
}
