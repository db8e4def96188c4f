//! Certificates for development and tests: a domain's good ones, and bad ones that a gateway must
//! refuse.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use liaison_trust::{
    ca::{Authority, RevokedSerial, TlsKey, certificate_request},
    certificate::{Certificate, revocation_list_to_pem},
    names::{AgencyAddress, Domain, SpiffeId},
    tls::Identity,
};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use time::{Duration, OffsetDateTime};

/// What to make.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The domain.
    pub domain: Domain,
    /// Its agencies, one at least.
    pub agencies: Vec<AgencyAddress>,
    /// DNS names and IP addresses of its gateway.
    pub hosts: Vec<String>,
    /// Bad certificates of the first agency.
    pub bad: Vec<Bad>,
}

/// What is wrong with a bad certificate. Nothing else is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Bad {
    /// Its life ended yesterday
    Expired,
    /// Its life begins tomorrow
    NotYetValid,
    /// It names something that is no party of the domain
    WrongName,
    /// It is on the revocation list crl.pem
    Revoked,
    /// Its authority has the domain's name, but is another
    ForeignCa,
    /// It is made for servers, not for clients
    WrongKeyUsage,
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its path.
    pub file: String,
    /// What is in it, for people.
    pub content: String,
}

/// How long good certificates and the revocation list live.
const LIFE: Duration = Duration::days(30);
/// How far in the past they begin, for the sake of clocks that are behind.
const CLOCK_BEHIND: Duration = Duration::hours(1);

/// Makes the files of a plan in `folder`, which must be missing or empty. Keys are readable by their
/// owner only.
pub fn make(folder: &Path, plan: &Plan) -> Result<Vec<Made>> {
    let Some(first) = plan.agencies.first() else { bail!("name one agency at least") };
    let authority = Authority::create(&plan.domain)?;
    let now = OffsetDateTime::now_utc();
    let life = [now - CLOCK_BEHIND, now + LIFE];
    let [begin, end] = life;
    let gateway = authority.issue_gateway(&plan.hosts, begin, end)?;

    let mut folder = Folder::create(folder)?;
    folder.write("ca.pem", &authority.certificate_pem(), format!("root of {}", plan.domain))?;
    folder.write_secret("ca.key", &authority.key_pem())?;
    folder.write_identity(
        "gateway",
        &gateway,
        &format!("spiffe://{}/gateway, {}", plan.domain, plan.hosts.join(", ")),
    )?;
    folder.create_inside("agencies")?;
    for agency in plan.agencies.iter().collect::<BTreeSet<_>>() {
        let name = SpiffeId::Agency(agency.clone());
        let identity = certify(&authority, &name, life)?;
        folder.write_identity(&format!("agencies/{}", agency.name()), &identity, &name.to_string())?;
    }

    let mut revoked = Vec::new();
    let kinds: BTreeSet<_> = plan.bad.iter().copied().collect();
    if !kinds.is_empty() {
        folder.create_inside("bad")?;
    }
    for kind in kinds {
        let identity = make_bad(kind, &authority, first, life)?;
        if kind == Bad::Revoked {
            let serial = Certificate::read(identity.certificate())?.serial;
            revoked.push(RevokedSerial { serial, at: begin });
        }
        let kind = kind.to_possible_value().context("every kind has a name")?;
        let fault = kind.get_help().map(ToString::to_string).unwrap_or_default();
        folder.write_identity(&format!("bad/{}", kind.get_name()), &identity, &fault)?;
    }
    let list = authority.revocation_list(&revoked, 1, begin, end)?;
    folder.write("crl.pem", &revocation_list_to_pem(&list), format!("{} revoked", revoked.len()))?;
    Ok(folder.made)
}

fn make_bad(
    kind: Bad,
    authority: &Authority,
    agency: &AgencyAddress,
    life: [OffsetDateTime; 2],
) -> Result<Identity> {
    let name = SpiffeId::Agency(agency.clone());
    let now = OffsetDateTime::now_utc();
    let day = Duration::DAY;
    match kind {
        Bad::Expired => certify(authority, &name, [now - day * 2, now - day]),
        Bad::NotYetValid => certify(authority, &name, [now + day, now + day * 2]),
        Bad::Revoked => certify(authority, &name, life),
        Bad::ForeignCa => certify(&Authority::create(agency.domain())?, &name, life),
        Bad::WrongName => {
            let nobody = format!("spiffe://{}/printer/{}", agency.domain(), agency.name());
            forge(authority, nobody, ExtendedKeyUsagePurpose::ClientAuth, life)
        }
        Bad::WrongKeyUsage => forge(authority, name.to_string(), ExtendedKeyUsagePurpose::ServerAuth, life),
    }
}

fn certify(authority: &Authority, name: &SpiffeId, [begin, end]: [OffsetDateTime; 2]) -> Result<Identity> {
    let key = TlsKey::generate()?;
    let leaf = authority.sign_request(&certificate_request(&key)?, name, begin, end)?;
    Ok(Identity::new(vec![leaf], key)?)
}

/// A certificate that the authority itself refuses to make.
fn forge(
    authority: &Authority,
    name: String,
    usage: ExtendedKeyUsagePurpose,
    [begin, end]: [OffsetDateTime; 2],
) -> Result<Identity> {
    let issuer =
        Issuer::from_ca_cert_der(authority.certificate_der(), TlsKey::from_pem(&authority.key_pem())?)?;
    let key = TlsKey::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = begin;
    params.not_after = end;
    params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &issuer)?.into();
    Ok(Identity::new(vec![leaf], key)?)
}

/// The folder in the making.
struct Folder {
    path: PathBuf,
    made: Vec<Made>,
}

impl Folder {
    fn create(path: &Path) -> Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the folder {shown} can't be made"))?;
        let mut entries = fs::read_dir(path).with_context(|| format!("the folder {shown} can't be read"))?;
        if entries.next().is_some() {
            bail!("the folder {shown} is not empty, and nothing is overwritten; name another folder");
        }
        Ok(Self { path: path.to_owned(), made: Vec::new() })
    }

    fn create_inside(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("the folder {} can't be made", path.display()))
    }

    fn write_identity(&mut self, stem: &str, identity: &Identity, content: &str) -> Result<()> {
        self.write(&format!("{stem}.pem"), &identity.chain_pem(), content.to_owned())?;
        self.write_secret(&format!("{stem}.key"), &identity.key_pem())
    }

    fn write_secret(&mut self, name: &str, text: &str) -> Result<()> {
        self.put(name, text, "its private key".to_owned(), 0o600)
    }

    fn write(&mut self, name: &str, text: &str, content: String) -> Result<()> {
        self.put(name, text, content, 0o644)
    }

    fn put(&mut self, name: &str, text: &str, content: String, mode: u32) -> Result<()> {
        let path = self.path.join(name);
        let shown = path.display().to_string();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("{shown} can't be written"))?;
        self.made.push(Made { file: shown, content });
        Ok(())
    }
}
