use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState,
    exchange::v1::Services,
    message::v1::{error_code::Code as ErrorCode, sector::Code as Sector},
};
use liaison_trust::{
    ca::{Authority as Ca, TlsKey, certificate_request},
    certificate::Certificate,
    keys::SigningKey,
    names::{AgencyAddress, SpiffeId},
};
use tempfile::TempDir;

use super::*;
use crate::{
    authority::Cas,
    config::Config,
    data::{DataFolder, write_private},
    directory::{Agency, Directory},
    federation::peers::Peers,
    limits,
    log::Logs,
    policy::{PolicySet, starter},
    revoked::{Revocations, RevokedFile},
    store::{Act, Company, QueueBound, Store},
};

mod authority;

/// A domain with the agency be/shelter, and no network.
struct Domain {
    registrar: Registrar,
    now: OffsetDateTime,
    folder: TempDir,
}

impl Domain {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signing = SigningKey::generate();
        let store = Store::open(
            &folder.path().join("liaison.db").into(),
            Company::None,
            QueueBound::default(),
            &signing,
        )
        .await
        .unwrap();
        let now = OffsetDateTime::now_utc();
        let shelter = agency("be/shelter");
        store.add_agency(&shelter, act(now)).await.unwrap();
        let config = "domain = 'be'\nexchange = '127.0.0.1:1'\nmetrics = '127.0.0.1:2'\n";
        let config = Config::parse("gateway.toml", config).unwrap();
        let ca = Ca::create(&config.domain).unwrap();
        let data = DataFolder::new(folder.path().to_owned());
        write_private(&data.ca_key(), ca.key_pem().as_bytes()).unwrap();
        write_private(&data.ca_certificate(), ca.certificate_pem().as_bytes()).unwrap();
        let cas = Cas::open(&data).unwrap();
        let (file, revocations) = RevokedFile::open(&folder.path().join("revoked")).unwrap();
        let authority = Authority::start(cas, &config, file, &revocations, &store, now).await.unwrap();
        let directory = Directory::from_iter([shelter]);
        let policies = PolicySet::load(&starter()).unwrap();
        let logs = Logs::open(&store, &config.domain, &signing, folder.path()).await.unwrap();
        let gateway =
            Gateway::new(config.domain, signing, (store, logs), directory, policies, Peers::default());
        Self {
            registrar: Registrar { gateway: Arc::new(gateway), authority: Arc::new(authority) },
            now,
            folder,
        }
    }

    async fn token(&self) -> String {
        let ca = self.registrar.authority.fingerprint();
        let token = Token::generate("be/shelter".parse().unwrap(), "127.0.0.1:1".to_owned(), ca).unwrap();
        let expires = self.now + Duration::from_secs(3600);
        let gateway = &self.registrar.gateway;
        assert!(
            gateway.store.add_token(&token.digest(), &token.agency, expires, act(self.now)).await.unwrap()
        );
        token.to_text().to_string()
    }

    async fn enrol(&self, token: &str, csr: &[u8]) -> Result<EnrollResponse, Refusal> {
        self.enrol_at(token, csr, self.now).await
    }

    async fn enrol_at(
        &self,
        token: &str,
        csr: &[u8],
        now: OffsetDateTime,
    ) -> Result<EnrollResponse, Refusal> {
        let csr = Bytes::copy_from_slice(csr);
        self.registrar.enroll(EnrollRequest { token: token.to_owned(), certificate_request: csr }, now).await
    }

    /// Enrols with a new key.
    async fn enrolled(&self) -> (TlsKey, Bytes) {
        let (key, csr) = key_and_request();
        let answer = self.enrol(&self.token().await, &csr).await.unwrap();
        (key, answer.certificates[0].clone())
    }

    async fn renew_expired(
        &self,
        csr: Vec<u8>,
        certificate: &Bytes,
        now: OffsetDateTime,
    ) -> Result<RenewResponse, Refusal> {
        let request =
            RenewRequest { certificate_request: csr.into(), expired_certificate: certificate.clone() };
        self.registrar.renew(&Peer::Anonymous, request, now).await
    }

    async fn renew_as(&self, certificate: &Bytes, csr: Vec<u8>) -> Result<RenewResponse, Refusal> {
        let read = Certificate::read(certificate).unwrap();
        let peer = Peer::Known {
            id: read.id().unwrap(),
            serial: read.serial,
            not_after: read.not_after,
            certificate: certificate.to_vec().into(),
        };
        let request = RenewRequest { certificate_request: csr.into(), expired_certificate: Bytes::new() };
        self.registrar.renew(&peer, request, self.now).await
    }

    /// What the file of revocations holds.
    fn revoked_serials(&self) -> Vec<Vec<u8>> {
        let revoked = Revocations::read_file(&self.folder.path().join("revoked")).unwrap();
        revoked.certificates.into_iter().map(|revoked| revoked.certificate.serial).collect()
    }

    async fn set_state(&self, state: AgencyState) {
        let address = "be/shelter".parse().unwrap();
        let gateway = &self.registrar.gateway;
        match state {
            AgencyState::Revoked => gateway.store.revoke_agency(&address, act(self.now)).await.unwrap(),
            _ => drop(gateway.store.set_agency_state(&address, state, act(self.now)).await.unwrap()),
        }
        gateway.change(&address, |agency| agency.state = state);
    }
}

fn agency(address: &str) -> Agency {
    Agency {
        address: address.parse().unwrap(),
        name: "The shelter".to_owned(),
        country: "be".to_owned(),
        sectors: vec![Sector::Ngo],
        groups: Vec::new(),
        state: AgencyState::Invited,
        listed: true,
        services: Services::default(),
        keys: Vec::new(),
    }
}

fn act(at: OffsetDateTime) -> Act<'static> {
    Act { at, actor: "test", act: "test", subject: "test" }
}

fn key_and_request() -> (TlsKey, Vec<u8>) {
    let key = TlsKey::generate().unwrap();
    let csr = request(&key);
    (key, csr)
}

fn request(key: &TlsKey) -> Vec<u8> {
    certificate_request(key).unwrap().to_vec()
}

fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> ErrorCode {
    answer.unwrap_err().code()
}

#[tokio::test]
async fn a_token_enrols_one_key_of_its_agency_and_answers_that_key_again() {
    let domain = Domain::new().await;
    let token = domain.token().await;
    let (key, csr) = key_and_request();
    let first = domain.enrol(&token, &csr).await.unwrap();
    assert_eq!(first.agency, "be/shelter");
    let leaf = Certificate::read(&first.certificates[0]).unwrap();
    assert_eq!(leaf.uri.unwrap(), "spiffe://be/agency/shelter");
    assert_eq!(leaf.public_key, key.public_key());
    assert_eq!(leaf.not_after - domain.now.truncate_to_second(), Duration::from_secs(24 * 3600));
    let bundle = first.bundle.clone().unwrap();
    assert_eq!(bundle.roots, [first.certificates[1].clone()]);
    let agency = domain.registrar.gateway.directory.load().get(&"be/shelter".parse().unwrap()).cloned();
    assert_eq!(agency.unwrap().state, AgencyState::Active);

    // The answer was lost: the same request gets the same certificate, even after the token's end.
    assert_eq!(domain.enrol(&token, &csr).await.unwrap(), first);
    let later = domain.now + Duration::from_secs(7200);
    assert_eq!(domain.enrol_at(&token, &csr, later).await.unwrap(), first);
    let (_, other) = key_and_request();
    assert_eq!(code(domain.enrol(&token, &other).await), ErrorCode::BadToken);
}

#[tokio::test]
async fn two_at_once_with_one_token_get_one_certificate() {
    let domain = Domain::new().await;
    let token = domain.token().await;
    let (_, one) = key_and_request();
    let (_, other) = key_and_request();
    let (a, b) = tokio::join!(domain.enrol(&token, &one), domain.enrol(&token, &other));
    assert_eq!(a.is_ok(), b.is_err(), "exactly one enrols");
    let token = domain.token().await;
    let (a, b) = tokio::join!(domain.enrol(&token, &one), domain.enrol(&token, &one));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a, b);
    let current = Certificate::read(&a.certificates[0]).unwrap().serial;
    assert!(!domain.revoked_serials().contains(&current), "nobody is revoked by a retry");
}

#[tokio::test]
async fn a_token_that_is_not_right_enrols_nobody() {
    let domain = Domain::new().await;
    let token = domain.token().await;
    let (_, csr) = key_and_request();
    assert_eq!(code(domain.enrol("", &csr).await), ErrorCode::BadToken);
    assert_eq!(code(domain.enrol(&token[..token.len() - 4], &csr).await), ErrorCode::BadToken);
    // Well formed and never made.
    let ca = domain.registrar.authority.fingerprint();
    let foreign = Token::generate("be/shelter".parse().unwrap(), "127.0.0.1:1".to_owned(), ca).unwrap();
    assert_eq!(code(domain.enrol(&foreign.to_text(), &csr).await), ErrorCode::BadToken);
    // Ours, with another agency written into it.
    let mut stolen: Token = token.parse().unwrap();
    stolen.agency = "be/police".parse().unwrap();
    assert_eq!(code(domain.enrol(&stolen.to_text(), &csr).await), ErrorCode::BadToken);
    let end = domain.now + Duration::from_secs(3600);
    assert_eq!(code(domain.enrol_at(&token, &csr, end).await), ErrorCode::BadToken);
    // None of that spent it.
    domain.enrol(&token, &csr).await.unwrap();
}

#[tokio::test]
async fn a_request_without_proof_is_refused_and_spends_no_token() {
    let domain = Domain::new().await;
    let token = domain.token().await;
    let (_, csr) = key_and_request();
    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    for garbage in [&[][..], b"garbage", &csr[1..], &forged] {
        assert_eq!(code(domain.enrol(&token, garbage).await), ErrorCode::Malformed);
    }
    let long = vec![0; limits::CERTIFICATE_REQUEST_BYTES + 1];
    assert_eq!(code(domain.enrol(&token, &long).await), ErrorCode::TooLarge);
    domain.enrol(&token, &csr).await.unwrap();
}

#[tokio::test]
async fn suspended_and_revoked_agencies_neither_enrol_nor_renew() {
    let domain = Domain::new().await;
    let (key, certificate) = domain.enrolled().await;
    let token = domain.token().await;
    for (state, refused) in
        [(AgencyState::Suspended, ErrorCode::Suspended), (AgencyState::Revoked, ErrorCode::Revoked)]
    {
        domain.set_state(state).await;
        let enrolled = domain.enrol(&token, &request(&key)).await;
        // Revocation forgets the agency's tokens.
        let expected = if state == AgencyState::Revoked { ErrorCode::BadToken } else { refused };
        assert_eq!(code(enrolled), expected);
        assert_eq!(code(domain.renew_as(&certificate, request(&key)).await), refused);
        let expired = domain.renew_expired(request(&key), &certificate, domain.now).await;
        assert_eq!(code(expired), refused);
    }
}

#[tokio::test]
async fn a_valid_certificate_renews_for_any_key() {
    let domain = Domain::new().await;
    let (_, certificate) = domain.enrolled().await;
    let (new_key, csr) = key_and_request();
    let renewed = domain.renew_as(&certificate, csr).await.unwrap();
    let read = Certificate::read(&renewed.certificates[0]).unwrap();
    assert_eq!(read.public_key, new_key.public_key());
    assert_ne!(read.serial, Certificate::read(&certificate).unwrap().serial);
}

#[tokio::test]
async fn renewals_are_bounded() {
    let domain = Domain::new().await;
    let (key, certificate) = domain.enrolled().await;
    for _ in 1..limits::CERTIFICATES_PER_AGENCY {
        domain.renew_as(&certificate, request(&key)).await.unwrap();
    }
    assert_eq!(code(domain.renew_as(&certificate, request(&key)).await), ErrorCode::RateLimited);
    // They end, and then there is room again.
    let end = Certificate::read(&certificate).unwrap().not_after;
    domain.renew_expired(request(&key), &certificate, end + Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_renews_for_its_own_key_and_90_days() {
    let domain = Domain::new().await;
    let (key, certificate) = domain.enrolled().await;
    let end = Certificate::read(&certificate).unwrap().not_after;
    let renewed = domain.renew_expired(request(&key), &certificate, end + limits::RENEWAL_GRACE).await;
    let read = Certificate::read(&renewed.unwrap().certificates[0]).unwrap();
    assert_eq!(read.public_key, key.public_key());

    let late = end + limits::RENEWAL_GRACE + Duration::from_secs(1);
    assert_eq!(code(domain.renew_expired(request(&key), &certificate, late).await), ErrorCode::Expired);
    let (_, other) = key_and_request();
    assert_eq!(code(domain.renew_expired(other, &certificate, end).await), ErrorCode::WrongName);
    let none = domain.renew_expired(request(&key), &Bytes::new(), end).await;
    assert_eq!(code(none), ErrorCode::NoClientCertificate);
    assert_eq!(
        code(domain.renew_expired(request(&key), &Bytes::from_static(b"no certificate"), end).await),
        ErrorCode::WrongName
    );
    // The right name and key, issued by another domain's CA of the same name.
    let foreign = Ca::create(&"be".parse().unwrap()).unwrap();
    let id = SpiffeId::Agency("be/shelter".parse().unwrap());
    let csr = request(&key);
    let forged = foreign.sign_request(&csr.as_slice().into(), &id, domain.now, end).unwrap();
    let forged = Bytes::copy_from_slice(&forged);
    assert_eq!(code(domain.renew_expired(csr, &forged, end).await), ErrorCode::WrongName);
    // The gateway's own certificates name no agency.
    let root = Bytes::copy_from_slice(&domain.registrar.authority.roots()[0]);
    assert_eq!(code(domain.renew_expired(request(&key), &root, end).await), ErrorCode::WrongName);
}

#[tokio::test]
async fn enrolling_anew_ends_the_former_agent() {
    let domain = Domain::new().await;
    let (stolen, certificate) = domain.enrolled().await;
    let (_, successor) = domain.enrolled().await;
    assert_eq!(code(domain.renew_as(&certificate, request(&stolen)).await), ErrorCode::Revoked);
    let end = Certificate::read(&certificate).unwrap().not_after;
    assert_eq!(code(domain.renew_expired(request(&stolen), &certificate, end).await), ErrorCode::Revoked);
    domain.renew_as(&successor, key_and_request().1).await.unwrap();

    assert_eq!(domain.revoked_serials(), [Certificate::read(&certificate).unwrap().serial]);
}

#[tokio::test]
async fn a_gateway_gets_no_agency_certificate() {
    let domain = Domain::new().await;
    let (_, csr) = key_and_request();
    let gateway = Peer::Known {
        id: SpiffeId::Gateway("be".parse().unwrap()),
        serial: vec![1],
        not_after: domain.now,
        certificate: Vec::new().into(),
    };
    for peer in [gateway, Peer::Misnamed] {
        let request = RenewRequest { certificate_request: csr.clone().into(), ..RenewRequest::default() };
        assert_eq!(code(domain.registrar.renew(&peer, request, domain.now).await), ErrorCode::WrongName);
    }
}

#[tokio::test]
async fn what_the_file_says_is_revoked_stays_so_in_an_older_database() {
    let domain = Domain::new().await;
    let (_, certificate) = domain.enrolled().await;
    let serial = Certificate::read(&certificate).unwrap().serial;
    let shelter: AgencyAddress = "be/shelter".parse().unwrap();
    let certificates = domain.registrar.gateway.store.certificates(&shelter, domain.now).await.unwrap();
    domain.registrar.authority.remember(Some(&shelter), certificates, domain.now).await.unwrap();

    // A database of before: it knows the agency, and neither its certificate nor its end.
    let older = Store::open(
        &domain.folder.path().join("older.db").into(),
        Company::None,
        QueueBound::default(),
        &SigningKey::generate(),
    )
    .await
    .unwrap();
    older.add_agency(&agency("be/shelter"), act(domain.now)).await.unwrap();
    let (_, revocations) = RevokedFile::open(&domain.folder.path().join("revoked")).unwrap();
    older.merge_revocations(&revocations).await.unwrap();
    assert!(older.is_revoked(&serial).await.unwrap());
    assert_eq!(
        older.directory(&Directory::default()).await.unwrap().get(&shelter).unwrap().state,
        AgencyState::Revoked
    );
    assert_eq!(older.revocations(domain.now).await.unwrap()[0].certificate.serial, serial);
    // One of before the agency was added: its address stays taken.
    let oldest = Store::open(
        &domain.folder.path().join("oldest.db").into(),
        Company::None,
        QueueBound::default(),
        &SigningKey::generate(),
    )
    .await
    .unwrap();
    oldest.merge_revocations(&revocations).await.unwrap();
    let addition = oldest.add_agency(&agency("be/shelter"), act(domain.now)).await.unwrap();
    assert_eq!(addition, crate::store::Addition::Revoked);
}
