//! Peers and what is known of their agencies.

use std::collections::BTreeSet;

use liaison_proto::{
    admin::v1::peer_state::Code as PeerState,
    exchange::v1 as wire,
    federation::v1::{DirectoryPage, SignedBundle},
};
use liaison_trust::names::{AgencyAddress, Domain};
use prost::Message;
use time::OffsetDateTime;

use super::{
    Store,
    columns::{decode, millis, moment, number},
};
use crate::store::{Act, StoreError, engine::query};

/// A peer as it is kept.
#[derive(Debug, Clone)]
pub struct KnownPeer {
    pub domain: Domain,
    pub state: PeerState,
    /// The newest bundle of it.
    pub bundle: SignedBundle,
    /// Countries that an administrator believes it to speak for.
    pub countries: BTreeSet<String>,
    /// When the peering ended last, or began anew after that: whatever ended before is known.
    pub removed: Option<OffsetDateTime>,
    /// How much of its directory is known; the epoch is empty for nothing.
    pub directory: (Vec<u8>, u64),
}

/// A page of a peer's directory as it is taken.
pub struct ToldPage<'a> {
    pub domain: &'a Domain,
    /// The peer's countries, by which the agencies were taken.
    pub countries: &'a BTreeSet<String>,
    pub page: &'a DirectoryPage,
    /// Agencies of the page that are taken.
    pub agencies: &'a [wire::Agency],
    pub withdrawn: &'a [AgencyAddress],
}

impl Store {
    /// Every peer that there is or was.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn peers(&self) -> Result<Vec<KnownPeer>, StoreError> {
        type PeerRow = (String, i32, Vec<u8>, String, Option<Vec<u8>>, i64, Option<i64>);
        let rows: Vec<PeerRow> = query(
            "SELECT domain, state, bundle, countries, directory_epoch, directory_sequence, removed FROM peer",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(domain, state, bundle, countries, epoch, sequence, removed)| {
                Ok(KnownPeer {
                    domain: domain.parse().map_err(|_| StoreError::Corrupt("domain"))?,
                    state: PeerState::try_from(state).map_err(|_| StoreError::Corrupt("state of a peer"))?,
                    bundle: decode(bundle)?,
                    countries: countries.split_whitespace().map(str::to_owned).collect(),
                    removed: removed.map(moment).transpose()?,
                    directory: (epoch.unwrap_or_default(), sequence.unsigned_abs()),
                })
            })
            .collect()
    }

    /// Keeps a peer as an administrator's act left it: it is to tell its directory anew. Of one that was removed,
    /// no agency is listed any more; of one that is a peer anew, none is known. False, and nothing changed, if the peering
    /// has ended meanwhile and this does not begin it anew.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_peer(&self, peer: &KnownPeer, is_anew: bool, act: Act<'_>) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        let removed = i32::from(PeerState::Removed);
        let kept = query(
            "INSERT INTO peer (domain, state, bundle, countries, removed) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (domain) DO UPDATE SET state = excluded.state, bundle = excluded.bundle, \
             countries = excluded.countries, removed = CASE WHEN excluded.removed IS NULL \
             OR peer.removed > excluded.removed THEN peer.removed ELSE excluded.removed END, \
             directory_epoch = NULL, directory_sequence = 0 \
             WHERE peer.state <> $6 OR excluded.state = $6 OR $7",
        )
        .bind(peer.domain.as_str())
        .bind(i32::from(peer.state))
        .bind(peer.bundle.encode_to_vec())
        .bind(joined(&peer.countries))
        .bind(peer.removed.map(millis))
        .bind(removed)
        .bind(is_anew)
        .execute(&mut change)
        .await?;
        if kept == 0 {
            return Ok(false);
        }
        if peer.state == PeerState::Removed {
            query("UPDATE peer_agency SET listed = FALSE WHERE domain = $1")
                .bind(peer.domain.as_str())
                .execute(&mut change)
                .await?;
        }
        if is_anew {
            query("DELETE FROM peer_agency WHERE domain = $1")
                .bind(peer.domain.as_str())
                .execute(&mut change)
                .await?;
        }
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        Ok(true)
    }

    /// Keeps a newer bundle of a peer in the place of one. If another has taken that place, nothing is changed; that one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn renew_bundle(
        &self,
        domain: &Domain,
        before: &SignedBundle,
        bundle: &SignedBundle,
    ) -> Result<Option<SignedBundle>, StoreError> {
        let mut change = self.writer.begin().await?;
        let kept = query("UPDATE peer SET bundle = $1 WHERE domain = $2 AND bundle = $3")
            .bind(bundle.encode_to_vec())
            .bind(domain.as_str())
            .bind(before.encode_to_vec())
            .execute(&mut change)
            .await?;
        if kept == 0 {
            let other: Vec<u8> = query("SELECT bundle FROM peer WHERE domain = $1")
                .bind(domain.as_str())
                .fetch_one(&mut change)
                .await?;
            return decode(other).map(Some);
        }
        self.commit_state(change).await?;
        Ok(None)
    }

    /// The agencies of all peers, each with whether it is listed.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn peer_agencies(&self) -> Result<Vec<(wire::Agency, bool)>, StoreError> {
        let rows: Vec<(Vec<u8>, bool)> =
            query("SELECT agency, listed FROM peer_agency").fetch_all(&self.readers).await?;
        rows.into_iter().map(|(agency, listed)| Ok((decode(agency)?, listed))).collect()
    }

    /// Remembers an agency that its domain does not list, for a message that it sent.
    ///
    /// # Errors
    /// The database failed.
    pub async fn note_sender(&self, domain: &Domain, agency: &wire::Agency) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        self.stager.append_keys(&mut change, &agency.keys.iter().collect::<Vec<_>>()).await?;
        query(
            "INSERT INTO peer_agency (address, domain, listed, epoch, agency) VALUES ($1, $2, FALSE, $3, $4) \
             ON CONFLICT (address) DO UPDATE SET agency = excluded.agency WHERE peer_agency.listed = FALSE",
        )
        .bind(&agency.address)
        .bind(domain.as_str())
        .bind(Vec::new())
        .bind(agency.encode_to_vec())
        .execute(&mut change)
        .await?;
        change.commit_told().await?;
        Ok(())
    }

    /// Takes a page of a peer's directory: agencies that are new or changed, and those withdrawn. With the last
    /// page of all, whatever was not told since the first is withdrawn as well. Says which were.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_peer_agencies(&self, told: ToldPage<'_>) -> Result<Vec<AgencyAddress>, StoreError> {
        let ToldPage { domain, countries, page, agencies, withdrawn } = told;
        let epoch = page.epoch.as_ref();
        let mut change = self.writer.begin().await?;
        // What this domain's agents are given stands in the log that they replay.
        let keys: Vec<_> = agencies.iter().flat_map(|agency| &agency.keys).collect();
        self.stager.append_keys(&mut change, &keys).await?;
        if page.first {
            query("UPDATE peer_agency SET epoch = $1 WHERE domain = $2")
                .bind(Vec::new())
                .bind(domain.as_str())
                .execute(&mut change)
                .await?;
        }
        for agency in agencies {
            query(
                "INSERT INTO peer_agency (address, domain, listed, epoch, agency) VALUES ($1, $2, TRUE, $3, $4) \
                 ON CONFLICT (address) DO UPDATE SET listed = TRUE, epoch = excluded.epoch, \
                 agency = excluded.agency",
            )
            .bind(&agency.address)
            .bind(domain.as_str())
            .bind(epoch)
            .bind(agency.encode_to_vec())
            .execute(&mut change)
            .await?;
        }
        let mut gone = withdrawn.to_vec();
        for address in withdrawn {
            query("UPDATE peer_agency SET listed = FALSE WHERE address = $1 AND domain = $2")
                .bind(address.to_string())
                .bind(domain.as_str())
                .execute(&mut change)
                .await?;
        }
        if page.complete {
            let left: Vec<String> = query(
                "UPDATE peer_agency SET listed = FALSE WHERE domain = $1 AND epoch <> $2 AND listed = TRUE \
                 RETURNING address",
            )
            .bind(domain.as_str())
            .bind(epoch)
            .fetch_all(&mut change)
            .await?;
            for address in left {
                gone.push(address.parse().map_err(|_| StoreError::Corrupt("agency address"))?);
            }
        }
        // Only what was told completely need not be told again, nor what was taken by other countries.
        if page.complete {
            query(
                "UPDATE peer SET directory_epoch = $1, directory_sequence = $2 \
                 WHERE domain = $3 AND countries = $4",
            )
            .bind(epoch)
            .bind(number(page.sequence))
            .bind(domain.as_str())
            .bind(joined(countries))
            .execute(&mut change)
            .await?;
        }
        change.commit_told().await?;
        Ok(gone)
    }
}

/// Countries as they are kept.
fn joined(countries: &BTreeSet<String>) -> String {
    countries.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}
