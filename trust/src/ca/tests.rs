use rcgen::{CertificateParams, CustomExtension, KeyPair};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _,
    revocation_list::CertificateRevocationList,
};

use super::*;
use crate::certificate::Certificate;

fn authority(domain: &str) -> Authority {
    Authority::create(&domain.parse().unwrap()).unwrap()
}

fn today() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    (now, now + Duration::hours(24))
}

fn agency(text: &str) -> SpiffeId {
    SpiffeId::Agency(text.parse().unwrap())
}

fn sign(
    authority: &Authority,
    request: &CertificateSigningRequestDer<'_>,
    name: &SpiffeId,
) -> Result<CertificateDer<'static>, CaError> {
    let (begin, end) = today();
    authority.sign_request(request, name, begin, end)
}

#[test]
fn certifies_an_agencys_key_and_name() {
    let authority = authority("be");
    let key = TlsKey::generate().unwrap();
    let request = certificate_request(&key).unwrap();
    let certificate = sign(&authority, &request, &agency("be/shelter")).unwrap();
    let read = Certificate::read(&certificate).unwrap();
    assert_eq!(read.id(), Some(agency("be/shelter")));
    assert_eq!(read.public_key, key.public_key());
    assert_eq!((read.not_before, read.not_after), today());
    assert_eq!(read.serial.len(), 16);
    assert_ne!(
        read.serial,
        Certificate::read(&sign(&authority, &request, &agency("be/shelter")).unwrap()).unwrap().serial
    );

    let (_, x509) = X509Certificate::from_der(&certificate).unwrap();
    let usage = x509.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!x509.is_ca());
    assert_eq!(x509.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    assert!(same_key(&request, &certificate).unwrap());
    let other = certificate_request(&TlsKey::generate().unwrap()).unwrap();
    assert!(!same_key(&other, &certificate).unwrap());
}

#[test]
fn certifies_a_gateway_for_its_hosts() {
    let authority = authority("be");
    let (begin, end) = today();
    let hosts = ["gateway.example", "127.0.0.1", "::1"].map(String::from);
    let identity = authority.issue_gateway(&hosts, begin, end).unwrap();
    assert_eq!(identity.chain().last(), Some(authority.certificate_der()));
    let (_, x509) = X509Certificate::from_der(identity.certificate()).unwrap();
    let names = &x509.subject_alternative_name().unwrap().unwrap().value.general_names;
    let localhost = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(
        *names,
        [
            GeneralName::URI("spiffe://be/gateway"),
            GeneralName::DNSName("gateway.example"),
            GeneralName::IPAddress(&[127, 0, 0, 1]),
            GeneralName::IPAddress(&localhost),
        ]
    );
    let usage = x509.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    let refused = authority.issue_gateway(&["not a host".into()], begin, end);
    assert!(matches!(refused, Err(CaError::Host(host)) if host == "not a host"));
}

#[test]
fn ignores_what_a_request_asks_for() {
    let authority = authority("be");
    let key = TlsKey::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.subject_alt_names = vec![SanType::URI("spiffe://be/gateway".try_into().unwrap())];
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let request = wishes.serialize_request(&key).unwrap().into();
    let certificate = sign(&authority, &request, &agency("be/shelter")).unwrap();
    assert_eq!(Certificate::read(&certificate).unwrap().id(), Some(agency("be/shelter")));
    let (_, x509) = X509Certificate::from_der(&certificate).unwrap();
    assert!(!x509.is_ca());
    assert!(!x509.extended_key_usage().unwrap().unwrap().value.server_auth);
}

#[test]
fn refuses_a_request_that_proves_nothing() {
    let authority = authority("be");
    let request = certificate_request(&TlsKey::generate().unwrap()).unwrap();
    let mut forged = request.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let mut longer = request.to_vec();
    longer.push(0);
    let mut odd = CertificateParams::default();
    odd.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
    let odd = odd.serialize_request(&TlsKey::generate().unwrap()).unwrap();
    let sign = |bytes: Vec<u8>| sign(&authority, &bytes.into(), &agency("be/shelter"));
    for bytes in [forged, odd.der().to_vec()] {
        assert!(matches!(sign(bytes), Err(CaError::Possession)));
    }
    for bytes in [longer, request[..40].to_vec(), Vec::new()] {
        assert!(matches!(sign(bytes), Err(CaError::Read(ReadError::Request))));
    }
}

#[test]
fn refuses_other_kinds_of_keys() {
    let authority = authority("be");
    let request = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().into()
    };
    assert!(sign(&authority, &request(&PKCS_ECDSA_P384_SHA384), &agency("be/shelter")).is_ok());
    let refused = sign(&authority, &request(&rcgen::PKCS_ED25519), &agency("be/shelter"));
    assert!(matches!(refused, Err(CaError::KeyKind)));
}

#[test]
fn refuses_names_that_are_not_its_own() {
    let authority = authority("be");
    let request = certificate_request(&TlsKey::generate().unwrap()).unwrap();
    for name in [agency("hu/shelter"), SpiffeId::Gateway("be".parse().unwrap())] {
        assert!(matches!(sign(&authority, &request, &name), Err(CaError::Name { .. })));
    }
}

#[test]
fn refuses_a_life_that_ends_before_it_begins() {
    let authority = authority("be");
    let (begin, end) = today();
    assert!(matches!(authority.issue_gateway(&[], end, begin), Err(CaError::Life)));
    assert!(matches!(authority.revocation_list(&[], 1, begin, begin), Err(CaError::Life)));
}

#[test]
fn lists_what_is_revoked() {
    let authority = authority("be");
    let (begin, end) = today();
    let serial = vec![0x41; 16];
    let revoked = [RevokedSerial { serial: serial.clone(), at: begin }];
    let list = authority.revocation_list(&revoked, 300, begin, end).unwrap();
    let (_, list) = CertificateRevocationList::from_der(&list).unwrap();
    assert_eq!(list.crl_number().unwrap().to_string(), "300");
    assert_eq!(list.next_update().unwrap().to_datetime(), end);
    let serials: Vec<_> = list.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()).collect();
    assert_eq!(serials, [serial]);
}

#[test]
fn is_read_from_its_files() {
    let authority = authority("be");
    let again = Authority::from_pem(&authority.certificate_pem(), &authority.key_pem()).unwrap();
    assert_eq!(again.domain(), authority.domain());
    assert_eq!(again.certificate_der(), authority.certificate_der());
    let request = certificate_request(&TlsKey::generate().unwrap()).unwrap();
    let certificate = sign(&again, &request, &agency("be/shelter")).unwrap();
    let (_, root) = X509Certificate::from_der(authority.certificate_der()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&certificate).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
    leaf.verify_signature(Some(root.public_key())).unwrap();

    let stranger = self::authority("be");
    let mixed = Authority::from_pem(&authority.certificate_pem(), &stranger.key_pem());
    assert!(matches!(mixed, Err(CaError::KeyMismatch)));
    let gateway = authority.issue_gateway(&[], today().0, today().1).unwrap();
    let no_authority = Authority::from_pem(&gateway.chain_pem(), &gateway.key_pem());
    assert!(matches!(no_authority, Err(CaError::NoDomain)));
    assert!(matches!(Authority::from_pem("", ""), Err(CaError::Read(ReadError::Pem))));
    assert!(matches!(TlsKey::from_pem(&authority.certificate_pem()), Err(CaError::Key)));
}

#[test]
fn keys_stay_out_of_debug_output() {
    let authority = authority("be");
    let key = authority.key_pem();
    let secret = key.lines().nth(1).unwrap();
    let identity = authority.issue_gateway(&[], today().0, today().1).unwrap();
    assert!(!format!("{authority:?}").contains(secret));
    assert!(
        !format!("{identity:?} {:?}", identity.key()).contains(identity.key_pem().lines().nth(1).unwrap())
    );
    let read = Identity::from_pem(&identity.chain_pem(), &identity.key_pem()).unwrap();
    assert_eq!(read.chain(), identity.chain());
    assert!(matches!(
        Identity::from_pem(&authority.certificate_pem(), &identity.key_pem()),
        Err(SetupError::KeyMismatch)
    ));
}

#[test]
fn recognises_what_it_issued_and_nothing_else() {
    let ours = authority("be");
    let request = certificate_request(&TlsKey::generate().unwrap()).unwrap();
    let certificate = sign(&ours, &request, &agency("be/shelter")).unwrap();
    assert_eq!(ours.recognise(&certificate).unwrap(), Certificate::read(&certificate).unwrap());

    let foreign = sign(&authority("be"), &request, &agency("be/shelter")).unwrap();
    assert!(matches!(ours.recognise(&foreign), Err(CaError::Foreign)));
    let mut changed = certificate.to_vec();
    let name = changed.windows(7).position(|bytes| bytes == b"shelter").unwrap();
    changed[name] = b'S';
    assert!(matches!(ours.recognise(&changed), Err(CaError::Foreign)));
    let mut longer = certificate.to_vec();
    longer.push(0);
    for garbage in [&[][..], b"garbage", &longer] {
        assert!(matches!(ours.recognise(garbage), Err(CaError::Read(_))));
    }
}
