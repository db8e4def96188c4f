//! Every RPC of the descriptor set and every endpoint of the OpenAPI document, tried as every kind of
//! caller. One that stands in no table fails.

use std::{
    collections::BTreeMap, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command,
};

use anyhow::{Context, Result, ensure};
use liaison_demo::http;
use liaison_proto::{
    POOL,
    message::v1::{Refusal, error_code::Code as ErrorCode},
};
use liaison_tests::{
    Federation, Realm, call,
    federation::Setup,
    forge::Claim,
    insider::{self, Insider},
    names::{BORDER, HOSPITAL, POLICE, SHELTER, SHELTER_HU},
    policies, raw,
    realm::{BE, HU},
};
use liaison_trust::{
    ca::Authority,
    tls::{Identity, TlsError},
};
use serde_json::Value;
use tonic::{Code, Status, metadata::MetadataMap};

/// What became of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// TLS ended before any request.
    NoConnection,
    /// The listener does not have the service.
    NotServed,
    Refused(ErrorCode),
    /// The call reached what it is about: it was answered, or its empty request was found wrong.
    Admitted,
}
use End::{Admitted, NoConnection, NotServed, Refused};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Anonymous,
    Enrolled,
    /// Known to the gateway, with a certificate that enrolment never gave.
    Invited,
    Suspended,
    Revoked,
    ForeignCa,
    Gateway,
    /// The gateway of a domain that has peered, and an agency of it.
    Peer,
    PeersAgency,
    /// This domain's gateway and the peer's, by the authority of the other one each.
    VouchedByPeer,
    PeerVouchedByUs,
}
use Caller::{
    Anonymous, Enrolled, ForeignCa, Gateway, Invited, Peer, PeerVouchedByUs, PeersAgency, Revoked, Suspended,
    VouchedByPeer,
};

/// A listener for callers from elsewhere.
#[derive(Debug, Clone, Copy)]
enum Listener {
    Exchange,
    Federation,
}

impl Listener {
    fn address(self, gateway: &liaison_demo::Gateway) -> SocketAddr {
        match self {
            Self::Exchange => gateway.exchange(),
            Self::Federation => gateway.federation(),
        }
    }

    /// Who gets no connection at all.
    fn shuts_out(self, caller: Caller) -> bool {
        let foreign = matches!(caller, ForeignCa | VouchedByPeer | PeerVouchedByUs);
        let peers = matches!(caller, Peer | PeersAgency);
        foreign
            || match self {
                Self::Exchange => peers || caller == Revoked,
                Self::Federation => !peers && caller != Anonymous,
            }
    }

    /// What a caller gets of an RPC whose service it has; none where it has not.
    fn end(self, service: &str, method: &str, caller: Caller) -> Option<End> {
        match self {
            Self::Exchange => on_exchange(service, method)?.get(&caller).copied(),
            Self::Federation => on_federation(service)?.get(&caller).copied(),
        }
    }
}

/// Services of the exchange listener, and what each kind of caller that it lets in gets of every RPC of theirs.
fn on_exchange(service: &str, method: &str) -> Option<BTreeMap<Caller, End>> {
    let ends: Vec<(Caller, End)> = match (service, method) {
        ("liaison.exchange.v1.ExchangeService", _) => vec![
            (Anonymous, Refused(ErrorCode::NoClientCertificate)),
            (Enrolled, Admitted),
            (Invited, Refused(ErrorCode::NotEnrolled)),
            (Suspended, Refused(ErrorCode::Suspended)),
            (Gateway, Refused(ErrorCode::WrongName)),
        ],
        // Whoever has a token may enrol, whatever else it shows; an empty request has none.
        ("liaison.exchange.v1.EnrolmentService", "Enroll") => {
            let no_token = Refused(ErrorCode::BadToken);
            [Anonymous, Enrolled, Invited, Suspended, Gateway].map(|caller| (caller, no_token)).to_vec()
        }
        ("liaison.exchange.v1.EnrolmentService", "Renew") => vec![
            (Anonymous, Refused(ErrorCode::NoClientCertificate)),
            (Enrolled, Admitted),
            (Invited, Refused(ErrorCode::NotEnrolled)),
            // Once resumed it renews with its expired certificate.
            (Suspended, Refused(ErrorCode::Suspended)),
            (Gateway, Refused(ErrorCode::WrongName)),
        ],
        _ => return None,
    };
    Some(ends.into_iter().collect())
}

/// The same of the federation listener: all its RPCs are for gateways of peers.
fn on_federation(service: &str) -> Option<BTreeMap<Caller, End>> {
    (service == "liaison.federation.v1.FederationService").then(|| {
        BTreeMap::from([
            (Anonymous, Refused(ErrorCode::NoClientCertificate)),
            (PeersAgency, Refused(ErrorCode::WrongName)),
            (Peer, Admitted),
        ])
    })
}

const CASE: &str = "liaison.case.v1.CaseService";
const ADMIN: &str = "liaison.admin.v1.AdminService";

#[tokio::test]
async fn every_rpc_as_every_caller() -> Result<()> {
    let mut federation = Federation::linked(&Setup {
        domains: &[BE, HU],
        scheme: policies::OPEN,
        layers: &[],
        agencies: &[HOSPITAL],
    })
    .await?;
    let callers = callers(&federation).await?;
    let realm = federation.realm("be")?;
    let trust = insider::trust(&realm.gateway)?;
    let listeners = [Listener::Exchange, Listener::Federation];
    let mut tried = 0;
    for service in POOL.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let own = matches!(service.full_name(), CASE | ADMIN);
            let of_gateway = on_exchange(service.full_name(), method.name()).is_some()
                || on_federation(service.full_name()).is_some();
            ensure!(own || of_gateway, "{path} stands in no table: say who may call it");
            for (listener, (caller, identity)) in listeners
                .into_iter()
                .flat_map(|listener| callers.iter().map(move |caller| (listener, caller)))
            {
                let address = listener.address(&realm.gateway);
                let connected = insider::connect(address, &trust, identity.as_ref()).await;
                let end = match connected {
                    Err(TlsError::Ours(_)) => NoConnection,
                    Err(other) => return Err(other.into()),
                    Ok(channel) => end(raw::call(channel, &path, MetadataMap::new()).await),
                };
                let expected = match listener.shuts_out(*caller) {
                    true => NoConnection,
                    false => listener.end(service.full_name(), method.name(), *caller).unwrap_or(NotServed),
                };
                assert_eq!(end, expected, "{path} as {caller:?} on {listener:?}");
                tried += 1;
            }
            let plain = call::plain(realm.agent(HOSPITAL)?)?;
            let case = service.full_name() == CASE;
            for (caller, metadata, expected) in case_callers(realm, case)? {
                assert_eq!(
                    end(raw::call(plain.clone(), &path, metadata).await),
                    expected,
                    "{path} with {caller}"
                );
                tried += 1;
            }
            // LoadPolicy with nothing in it is tried as well: a set with any fault changes nothing.
            let admin = end(raw::call(call::admin(&realm.gateway).await?, &path, MetadataMap::new()).await);
            let expected = if service.full_name() == ADMIN { Admitted } else { NotServed };
            assert_eq!(admin, expected, "{path} on the admin socket");
            tried += 1;
        }
    }
    println!("{tried} calls");
    ensure!(tried > 1_000, "only {tried} calls were tried");
    federation.realm_mut("be")?.gateway.stop().await
}

/// Each kind of caller of `be`'s gateway with its certificate; `hu` has peered with it.
async fn callers(federation: &Federation) -> Result<Vec<(Caller, Option<Identity>)>> {
    let (gateway, peer) = (&federation.realm("be")?.gateway, &federation.realm("hu")?.gateway);
    let enrolled = Insider::enrol(gateway, SHELTER).await?;
    let suspended = Insider::enrol(gateway, POLICE).await?;
    gateway.command(&["agency", "suspend", POLICE]).await?;
    gateway
        .command(&["agency", "add", "be/former", "--name", "Former", "--country", "be", "--sector", "NGO"])
        .await?;
    let revoked = Insider::enrol(gateway, "be/former").await?;
    gateway.command(&["agency", "revoke", "be/former"]).await?;
    let authority = Authority::create(&"be".parse()?)?;
    let foreign = Claim::genuine("spiffe://be/agency/shelter-antwerp")
        .by(&authority.certificate_pem(), &authority.key_pem())?;
    let invited = format!("spiffe://be/agency/{}", BORDER.trim_start_matches("be/"));
    Ok(vec![
        (Anonymous, None),
        (Enrolled, Some(enrolled.identity)),
        (Invited, Some(Claim::genuine(&invited).by_authority_of(gateway)?)),
        (Suspended, Some(suspended.identity)),
        (Revoked, Some(revoked.identity)),
        (ForeignCa, Some(foreign)),
        (Gateway, Some(Claim::genuine("spiffe://be/gateway").by_authority_of(gateway)?)),
        (Peer, Some(Claim::genuine("spiffe://hu/gateway").by_authority_of(peer)?)),
        (PeersAgency, Some(Insider::enrol(peer, SHELTER_HU).await?.identity)),
        (VouchedByPeer, Some(Claim::genuine("spiffe://be/gateway").by_authority_of(peer)?)),
        (PeerVouchedByUs, Some(Claim::genuine("spiffe://hu/gateway").by_authority_of(gateway)?)),
    ])
}

/// What callers of the agent's gRPC API show, and what they get where the service is its own.
fn case_callers(realm: &Realm, served: bool) -> Result<Vec<(&'static str, MetadataMap, End)>> {
    let token = realm.agent(HOSPITAL)?.api_token()?;
    let shown = |bearer: Option<String>, actor: Option<&'static str>| -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        if let Some(bearer) = bearer {
            metadata.insert("authorization", bearer.parse()?);
        }
        if let Some(actor) = actor {
            metadata.insert("liaison-actor", actor.parse()?);
        }
        Ok(metadata)
    };
    let (bad, missing) = (Refused(ErrorCode::BadToken), Refused(ErrorCode::MissingField));
    let callers = vec![
        ("no token", shown(None, Some("me"))?, bad),
        ("a wrong token", shown(Some(format!("Bearer x{token}")), Some("me"))?, bad),
        (
            "a part of the token",
            shown(Some(format!("Bearer {}", token.get(1..).unwrap_or_default())), Some("me"))?,
            bad,
        ),
        ("another scheme", shown(Some(format!("Basic {token}")), Some("me"))?, bad),
        ("no actor", shown(Some(format!("Bearer {token}")), None)?, missing),
        ("all of it", shown(Some(format!("Bearer {token}")), Some("me"))?, Admitted),
    ];
    let seen = |end| if served { end } else { NotServed };
    Ok(callers.into_iter().map(|(caller, metadata, end)| (caller, metadata, seen(end))).collect())
}

fn end<T>(answer: Result<T, Status>) -> End {
    let Err(status) = answer else { return Admitted };
    if status.code() == Code::Unimplemented {
        return NotServed;
    }
    let code = Refusal::from(&status).code();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Refused(code),
        _ if matches!(code, ErrorCode::NotEnrolled | ErrorCode::MissingField) && is_about_caller(&status) => {
            Refused(code)
        }
        // An empty request, found wrong by what it was for.
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => Admitted,
        _ => Refused(code),
    }
}

/// Whether a refusal is about who calls: a missing actor, an agency that has not enrolled.
fn is_about_caller(status: &Status) -> bool {
    let text = status.message();
    text.contains("liaison-actor") || text.contains("enrol")
}

/// Endpoints that anybody on the host may read.
const OPEN_ENDPOINTS: [(&str, &str); 3] = [("get", "/openapi.json"), ("get", "/livez"), ("get", "/metrics")];
/// Endpoints that show the API token and name an actor.
const GUARDED_ENDPOINTS: [(&str, &str); 16] = [
    ("post", "/v1/preview"),
    ("post", "/v1/referrals"),
    ("get", "/v1/referrals"),
    ("get", "/v1/referrals/{id}"),
    ("post", "/v1/referrals/{id}/state"),
    ("post", "/v1/referrals/{id}/onward"),
    ("get", "/v1/onward-requests"),
    ("post", "/v1/onward-requests/{id}/answer"),
    ("post", "/v1/alerts"),
    ("get", "/v1/alerts"),
    ("get", "/v1/alerts/{id}"),
    ("get", "/v1/messages/{id}/receipts"),
    ("get", "/v1/agencies"),
    ("get", "/v1/keys"),
    ("post", "/v1/keys/confirm"),
    ("get", "/v1/status"),
];

#[tokio::test]
async fn every_endpoint_as_every_caller() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    let hospital = realm.agent(HOSPITAL)?;
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/openapi.json");
    let document: Value = serde_json::from_slice(&fs::read(committed)?)?;
    let served = http::request(hospital.rest(), "GET", "/openapi.json", &[], &[]).await?;
    assert_eq!(served.json(), document, "the committed document is not the one that is served");

    let mut endpoints = Vec::new();
    for (path, item) in document.get("paths").and_then(Value::as_object).context("no paths")? {
        let item = item.as_object().context("a path is no object")?;
        let methods =
            item.keys().filter(|key| ["get", "put", "post", "delete", "patch"].contains(&key.as_str()));
        endpoints.extend(methods.map(|method| (method.clone(), path.clone())));
    }
    let token = hospital.api_token()?;
    let (good, wrong) = (format!("Bearer {token}"), format!("Bearer x{token}"));
    let known = OPEN_ENDPOINTS.iter().chain(&GUARDED_ENDPOINTS);
    for (method, path) in known {
        if !OPEN_ENDPOINTS.contains(&(method, path)) {
            let entry = (String::from(*method), String::from(*path));
            ensure!(endpoints.contains(&entry), "{method} {path} is not in the document");
        }
    }
    for (method, path) in &endpoints {
        let entry = (method.as_str(), path.as_str());
        let open = OPEN_ENDPOINTS.contains(&entry);
        ensure!(open || GUARDED_ENDPOINTS.contains(&entry), "{method} {path} stands in no table");
        let target = path.replace("{id}", "019a0000-0000-7000-8000-000000000000");
        for (caller, headers, refused) in [
            ("nothing", vec![], Some((401, "bad_token"))),
            ("no token", vec![("liaison-actor", "me")], Some((401, "bad_token"))),
            (
                "a wrong token",
                vec![("authorization", wrong.as_str()), ("liaison-actor", "me")],
                Some((401, "bad_token")),
            ),
            ("no actor", vec![("authorization", good.as_str())], Some((400, "missing_field"))),
            ("all of it", vec![("authorization", good.as_str()), ("liaison-actor", "me")], None),
        ] {
            let answer =
                http::request(hospital.rest(), &method.to_uppercase(), &target, &headers, &[]).await?;
            match refused.filter(|_| !open) {
                Some((status, code)) => {
                    assert_eq!(
                        (answer.status, answer.error_code().as_str()),
                        (status, code),
                        "{method} {path} with {caller}"
                    );
                }
                None => assert!(
                    !matches!(answer.status, 401 | 403 | 405 | 500),
                    "{method} {path} with {caller}: {} {}",
                    answer.status,
                    answer.text()
                ),
            }
        }
    }
    Ok(())
}

/// Only the gateway's own user opens its admin socket, and only an agency's own user its keys.
#[tokio::test]
async fn other_users_of_the_host_get_nothing() -> Result<()> {
    let realm = Realm::start(policies::OPEN, &[HOSPITAL]).await?;
    fs::set_permissions(realm.folder(), fs::Permissions::from_mode(0o755))?;
    let (gateway, agent) = (&realm.gateway.data, &realm.agent(HOSPITAL)?.data);
    let mut secrets = 0;
    for folder in [gateway.clone(), agent.clone(), agent.join("keys")] {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let public =
                path.extension().is_some_and(|kind| kind == "pem" || kind == "toml") || path.is_dir();
            let mode = fs::metadata(&path)?.permissions().mode();
            assert!(public || mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
            secrets += usize::from(!public);
        }
    }
    ensure!(secrets >= 8, "only {secrets} files were looked at");
    let socket = gateway.join("admin.sock");
    let connect = |program: &[&str]| -> Result<Option<i32>> {
        let (first, rest) = program.split_first().context("no program")?;
        let curl = ["curl", "--silent", "--max-time", "5", "--unix-socket"];
        let arguments = rest.iter().chain(&curl[usize::from(*first == "curl")..]);
        Ok(Command::new(first).args(arguments).arg(&socket).arg("http://admin/").output()?.status.code())
    };
    const COULD_NOT_CONNECT: Option<i32> = Some(7);
    assert_ne!(connect(&["curl"])?, COULD_NOT_CONNECT, "the owner can't connect, so this shows nothing");
    // Only root can try as somebody else.
    if Command::new("id").arg("-u").output()?.stdout == b"0\n" {
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        assert_eq!(connect(&nobody)?, COULD_NOT_CONNECT);
    }
    Ok(())
}
