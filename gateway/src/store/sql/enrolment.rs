//! Tokens, the certificates that agencies have, and revocations.

use liaison_proto::{
    admin::v1::{agency_state::Code as AgencyState, peer_state::Code as PeerState},
    federation::v1::Bundle,
};
use liaison_trust::{digest::Digest, names::AgencyAddress};
use time::OffsetDateTime;

use super::{
    Store,
    authority::IssuedBy,
    columns::{address, decode, digest, millis, moment},
    peers::KnownPeer,
};
use crate::{
    limits,
    revoked::Revocations,
    store::{
        Act, StoreError,
        engine::{Transaction, query},
    },
};

/// What is known of a token.
#[derive(Debug, Clone)]
pub struct Token {
    pub agency: AgencyAddress,
    pub expires: OffsetDateTime,
    /// Its one use, if it was used.
    pub used: Option<TokenUse>,
}

/// The one use of a token.
#[derive(Debug, Clone)]
pub struct TokenUse {
    /// The digest of the certificate request.
    pub request: Digest,
    /// The certificate that it got, DER.
    pub certificate: Vec<u8>,
}

/// A certificate that an agency has or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    pub serial: Vec<u8>,
    pub agency: AgencyAddress,
    pub not_after: OffsetDateTime,
}

/// A revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedCertificate {
    pub certificate: IssuedCertificate,
    pub at: OffsetDateTime,
}

/// What became of a renewed certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Kept,
    /// The agency is not active any more, or the certificate that it was renewed from is revoked.
    NotAllowed,
    /// The agency has as many valid certificates as it may.
    TooMany,
}

impl Store {
    /// Keeps a new token by its digest; false if the agency has as many unused ones as it may.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_token(
        &self,
        digest: &Digest,
        agency: &AgencyAddress,
        expires: OffsetDateTime,
        act: Act<'_>,
    ) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        let unused: u32 =
            query("SELECT count(*) FROM token WHERE agency = $1 AND request IS NULL AND expires > $2")
                .bind(agency.to_string())
                .bind(millis(act.at))
                .fetch_one(&mut change)
                .await?;
        if unused >= limits::TOKENS_PER_AGENCY {
            return Ok(false);
        }
        query("INSERT INTO token (digest, agency, expires) VALUES ($1, $2, $3)")
            .bind(digest.as_ref())
            .bind(agency.to_string())
            .bind(millis(expires))
            .execute(&mut change)
            .await?;
        self.stager.record(&mut change, act).await?;
        change.commit().await?;
        Ok(true)
    }

    /// The token with this digest.
    ///
    /// # Errors
    /// The database failed.
    pub async fn token(&self, token: &Digest) -> Result<Option<Token>, StoreError> {
        type Row = (String, i64, Option<Vec<u8>>, Option<Vec<u8>>);
        let row: Option<Row> =
            query("SELECT agency, expires, request, certificate FROM token WHERE digest = $1")
                .bind(token.as_ref())
                .fetch_optional(&self.readers)
                .await?;
        let Some((agency, expires, request, certificate)) = row else { return Ok(None) };
        let used = match (request, certificate) {
            (Some(request), Some(certificate)) => Some(TokenUse { request: digest(&request)?, certificate }),
            _ => None,
        };
        Ok(Some(Token { agency: address(&agency)?, expires: moment(expires)?, used }))
    }

    /// Uses a token for a certificate: the agency becomes active, and what the agency's former agent
    /// had is revoked and told. None, and nothing changed, if the token was used in the meantime or
    /// the agency may not enrol any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn use_token(
        &self,
        token: &Digest,
        used: &TokenUse,
        issued: &IssuedCertificate,
        by: &IssuedBy,
        now: OffsetDateTime,
    ) -> Result<Option<Vec<IssuedCertificate>>, StoreError> {
        let mut change = self.writer.begin().await?;
        let agency = issued.agency.to_string();
        let (active, invited) = (i32::from(AgencyState::Active), i32::from(AgencyState::Invited));
        let spent = query(
            "UPDATE token SET request = $1, certificate = $2 WHERE digest = $3 AND request IS NULL \
             AND EXISTS (SELECT 1 FROM agency WHERE address = token.agency AND state IN ($4, $5))",
        )
        .bind(used.request.as_ref())
        .bind(&used.certificate)
        .bind(token.as_ref())
        .bind(active)
        .bind(invited)
        .execute(&mut change)
        .await?;
        if spent == 0 {
            return Ok(None);
        }
        let replaced: Vec<(Vec<u8>, i64)> = query(
            "INSERT INTO revocation (serial, agency, not_after, at) \
             SELECT serial, agency, not_after, $1 FROM certificate WHERE agency = $2 \
             ON CONFLICT DO NOTHING RETURNING serial, not_after",
        )
        .bind(millis(now))
        .bind(&agency)
        .fetch_all(&mut change)
        .await?;
        query("UPDATE agency SET state = $1 WHERE address = $2")
            .bind(active)
            .bind(&agency)
            .execute(&mut change)
            .await?;
        insert_certificate(&mut change, issued, by, now).await?;
        let act = Act { at: now, actor: &agency, act: "enrol", subject: &agency };
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        issued_to(&issued.agency, replaced).map(Some)
    }

    /// Keeps a renewed certificate, if that is allowed at the moment it is kept.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_certificate(
        &self,
        issued: &IssuedCertificate,
        by: &IssuedBy,
        renewed_from: &[u8],
        now: OffsetDateTime,
    ) -> Result<Renewal, StoreError> {
        let mut change = self.writer.begin().await?;
        let (allowed, valid): (bool, u32) = query(
            "SELECT EXISTS (SELECT 1 FROM agency WHERE address = $1 AND state = $2) \
             AND NOT EXISTS (SELECT 1 FROM revocation WHERE serial = $3), \
             (SELECT count(*) FROM certificate WHERE agency = $1 AND not_after > $4)",
        )
        .bind(issued.agency.to_string())
        .bind(i32::from(AgencyState::Active))
        .bind(renewed_from)
        .bind(millis(now))
        .fetch_one(&mut change)
        .await?;
        if !allowed {
            return Ok(Renewal::NotAllowed);
        }
        if valid >= limits::CERTIFICATES_PER_AGENCY {
            return Ok(Renewal::TooMany);
        }
        insert_certificate(&mut change, issued, by, now).await?;
        change.commit().await?;
        Ok(Renewal::Kept)
    }

    /// Whether a certificate is revoked.
    ///
    /// # Errors
    /// The database failed.
    pub async fn is_revoked(&self, serial: &[u8]) -> Result<bool, StoreError> {
        let revoked = query("SELECT EXISTS (SELECT 1 FROM revocation WHERE serial = $1)")
            .bind(serial)
            .fetch_one(&self.readers)
            .await?;
        Ok(revoked)
    }

    /// An agency's certificates that end after this moment.
    ///
    /// # Errors
    /// The database failed.
    pub async fn certificates(
        &self,
        agency: &AgencyAddress,
        after: OffsetDateTime,
    ) -> Result<Vec<IssuedCertificate>, StoreError> {
        let rows: Vec<(Vec<u8>, i64)> = query(
            "SELECT serial, not_after FROM certificate WHERE agency = $1 AND not_after > $2 ORDER BY not_after",
        )
        .bind(agency.to_string())
        .bind(millis(after))
        .fetch_all(&self.readers)
        .await?;
        issued_to(agency, rows)
    }

    /// When each agency's latest certificate ends.
    ///
    /// # Errors
    /// The database failed.
    pub async fn latest_certificates(&self) -> Result<Vec<(AgencyAddress, OffsetDateTime)>, StoreError> {
        let rows: Vec<(String, i64)> =
            query("SELECT agency, max(not_after) FROM certificate GROUP BY agency")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(|(agency, not_after)| Ok((address(&agency)?, moment(not_after)?))).collect()
    }

    /// Ends an agency's membership for good, with all its certificates and unused tokens.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke_agency(&self, agency: &AgencyAddress, act: Act<'_>) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        revoke(&mut change, &agency.to_string(), act.at).await?;
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        Ok(())
    }

    /// Makes sure that everything in the file of revocations is revoked here as well.
    ///
    /// # Errors
    /// The database failed.
    pub async fn merge_revocations(&self, revocations: &Revocations) -> Result<(), StoreError> {
        if *revocations == Revocations::default() {
            return Ok(());
        }
        let mut change = self.writer.begin().await?;
        for (agency, at) in &revocations.agencies {
            revoke(&mut change, &agency.to_string(), *at).await?;
        }
        for revoked in &revocations.certificates {
            query(
                "INSERT INTO revocation (serial, agency, not_after, at) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(&revoked.certificate.serial)
            .bind(revoked.certificate.agency.to_string())
            .bind(millis(revoked.certificate.not_after))
            .bind(millis(revoked.at))
            .execute(&mut change)
            .await?;
        }
        self.commit_state(change).await?;
        for peer in self.peers().await? {
            let bundle: Bundle = decode(peer.bundle.bundle.to_vec())?;
            let ended = revocations.ended_since(&peer.domain, &bundle.gateway_signing_key, peer.removed);
            if let Some(at) = ended.filter(|_| peer.state != PeerState::Removed) {
                let subject = peer.domain.to_string();
                let act = Act { at, actor: "the revoked file", act: "remove_peer", subject: &subject };
                let removed = Some(at);
                self.set_peer(&KnownPeer { state: PeerState::Removed, removed, ..peer }, false, act).await?;
            }
        }
        Ok(())
    }

    /// The revoked certificates that would otherwise be valid: what a revocation list holds.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revocations(&self, now: OffsetDateTime) -> Result<Vec<RevokedCertificate>, StoreError> {
        let rows: Vec<(Vec<u8>, String, i64, i64)> =
            query("SELECT serial, agency, not_after, at FROM revocation WHERE not_after > $1")
                .bind(millis(now))
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter()
            .map(|(serial, agency, not_after, at)| {
                let (agency, not_after) = (address(&agency)?, moment(not_after)?);
                let certificate = IssuedCertificate { serial, agency, not_after };
                Ok(RevokedCertificate { certificate, at: moment(at)? })
            })
            .collect()
    }

    /// Forgets tokens and certificates that nothing can be done with any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_expired(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        let oldest = millis(now - limits::RENEWAL_GRACE);
        let mut change = self.writer.begin().await?;
        query("DELETE FROM token WHERE expires < $1").bind(oldest).execute(&mut change).await?;
        query("DELETE FROM certificate WHERE not_after < $1").bind(oldest).execute(&mut change).await?;
        query("DELETE FROM revocation WHERE not_after < $1").bind(oldest).execute(&mut change).await?;
        change.commit().await?;
        Ok(())
    }
}

fn issued_to(
    agency: &AgencyAddress,
    rows: Vec<(Vec<u8>, i64)>,
) -> Result<Vec<IssuedCertificate>, StoreError> {
    let read = |(serial, not_after)| {
        Ok(IssuedCertificate { serial, agency: agency.clone(), not_after: moment(not_after)? })
    };
    rows.into_iter().map(read).collect()
}

async fn insert_certificate(
    change: &mut Transaction,
    issued: &IssuedCertificate,
    by: &IssuedBy,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO certificate (serial, agency, not_after, issued, ca, other) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&issued.serial)
    .bind(issued.agency.to_string())
    .bind(millis(issued.not_after))
    .bind(millis(now))
    .bind(by.ca.as_ref())
    .bind(by.other.as_ref().map(AsRef::<[u8]>::as_ref))
    .execute(&mut *change)
    .await?;
    Ok(())
}

async fn revoke(change: &mut Transaction, agency: &str, at: OffsetDateTime) -> Result<(), StoreError> {
    query("UPDATE agency SET state = $1 WHERE address = $2")
        .bind(i32::from(AgencyState::Revoked))
        .bind(agency)
        .execute(&mut *change)
        .await?;
    query("INSERT INTO revoked_agency (agency, at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(agency)
        .bind(millis(at))
        .execute(&mut *change)
        .await?;
    query(
        "INSERT INTO revocation (serial, agency, not_after, at) \
         SELECT serial, agency, not_after, $1 FROM certificate WHERE agency = $2 ON CONFLICT DO NOTHING",
    )
    .bind(millis(at))
    .bind(agency)
    .execute(&mut *change)
    .await?;
    query("DELETE FROM token WHERE agency = $1").bind(agency).execute(&mut *change).await?;
    Ok(())
}
