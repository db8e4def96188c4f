//! The admin API: what an administrator's commands ask of a running gateway.

mod agencies;
mod client;
mod desk;
mod erasure;
mod peering;
mod rollover;
mod server;

use std::sync::Arc;

use liaison_proto::{
    admin::v1::{
        AcceptPeerRequest, AddAgencyRequest, AgencyRequest, AgencyStatus, AuthorityRequest, AuthorityStatus,
        CreateTokenRequest, CreateTokenResponse, DescribeAgencyRequest, EraseRecordsRequest,
        EraseRecordsResponse, ExplainPolicyRequest, InvitePeerRequest, ListAgenciesRequest,
        ListAgenciesResponse, ListPeersRequest, ListPeersResponse, LoadPolicyRequest, LoadPolicyResponse,
        PeerInvitation, PeerRequest, PeerStatus, PolicyFile as WirePolicyFile, StatusRequest, StatusResponse,
        admin_service_server::AdminService,
    },
    exchange::v1::PreviewResponse,
};
use tonic::{Request, Response, Status, transport::server::UdsConnectInfo};

pub use client::connect;
pub use server::{Listening, SocketError, listen};

use crate::{
    authority::Authority,
    gateway::{Gateway, to_the_end},
    policy::PolicyFile,
};
use desk::Desk;

/// Answers administrators' commands.
pub struct Admin {
    desk: Arc<Desk>,
}

impl Admin {
    /// The service of a gateway that agents reach at this `host:port`.
    pub fn new(gateway: Arc<Gateway>, authority: Arc<Authority>, reachable_at: String) -> Self {
        Self { desk: Arc::new(Desk::new(gateway, authority, reachable_at)) }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn add_agency(&self, request: Request<AddAgencyRequest>) -> Result<Response<AgencyStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.add(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn list_agencies(
        &self,
        _: Request<ListAgenciesRequest>,
    ) -> Result<Response<ListAgenciesResponse>, Status> {
        Ok(Response::new(self.desk.list().await?))
    }

    async fn show_agency(&self, request: Request<AgencyRequest>) -> Result<Response<AgencyStatus>, Status> {
        self.desk.look().await;
        let agency = self.desk.agency(&request.into_inner().address)?;
        Ok(Response::new(self.desk.show(&agency.address).await?))
    }

    async fn suspend_agency(
        &self,
        request: Request<AgencyRequest>,
    ) -> Result<Response<AgencyStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.suspend(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn resume_agency(&self, request: Request<AgencyRequest>) -> Result<Response<AgencyStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.resume(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn describe_agency(
        &self,
        request: Request<DescribeAgencyRequest>,
    ) -> Result<Response<AgencyStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.describe(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn revoke_agency(&self, request: Request<AgencyRequest>) -> Result<Response<AgencyStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.revoke(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.token(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn load_policy(
        &self,
        request: Request<LoadPolicyRequest>,
    ) -> Result<Response<LoadPolicyResponse>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.load(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<PreviewResponse>, Status> {
        Ok(Response::new(self.desk.explain(request.into_inner()).await?))
    }

    async fn invite_peer(&self, _: Request<InvitePeerRequest>) -> Result<Response<PeerInvitation>, Status> {
        Ok(Response::new(self.desk.invite()?))
    }

    async fn accept_peer(&self, request: Request<AcceptPeerRequest>) -> Result<Response<PeerStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.accept(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Ok(Response::new(self.desk.list_peers().await?))
    }

    async fn suspend_peer(&self, request: Request<PeerRequest>) -> Result<Response<PeerStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.suspend_peer(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn resume_peer(&self, request: Request<PeerRequest>) -> Result<Response<PeerStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.resume_peer(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn remove_peer(&self, request: Request<PeerRequest>) -> Result<Response<PeerStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.remove_peer(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn authority(
        &self,
        request: Request<AuthorityRequest>,
    ) -> Result<Response<AuthorityStatus>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.authority(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn erase_records(
        &self,
        request: Request<EraseRecordsRequest>,
    ) -> Result<Response<EraseRecordsResponse>, Status> {
        let (desk, by) = (Arc::clone(&self.desk), actor(&request));
        let done = to_the_end(async move { desk.erase(request.into_inner(), &by).await }).await?;
        Ok(Response::new(done))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.desk.status().await))
    }
}

/// Which user of this machine asks, for the audit.
fn actor<T>(request: &Request<T>) -> String {
    let credentials = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    credentials.map_or_else(|| "unknown".to_owned(), |credentials| format!("uid {}", credentials.uid()))
}

impl From<PolicyFile> for WirePolicyFile {
    fn from(PolicyFile { path, text }: PolicyFile) -> Self {
        Self { path, text }
    }
}

impl From<WirePolicyFile> for PolicyFile {
    fn from(WirePolicyFile { path, text }: WirePolicyFile) -> Self {
        Self { path, text }
    }
}
