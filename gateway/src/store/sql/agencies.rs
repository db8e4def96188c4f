//! Agencies and what administrators did.

use liaison_proto::{
    admin::v1::agency_state::Code as AgencyState, exchange::v1::Services, message::v1::sector::Code as Sector,
};
use prost::Message;

use liaison_trust::{key_record::prove_chain, names::AgencyAddress};

use super::{
    Store,
    columns::{decode, millis},
};
use crate::{
    directory::{Agency, Directory},
    limits,
    store::{
        Act, Stager, StoreError,
        engine::{Transaction, query},
    },
};

/// What became of a new agency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addition {
    Added,
    /// The address is taken.
    Taken,
    /// The address was an agency's that was revoked for good.
    Revoked,
    /// The domain has as many agencies as it may.
    Full,
}

type AgencyRow = (String, String, String, String, String, i32, Vec<u8>);

impl Store {
    /// Every agency with its key records; those that are `known` are not proven again.
    ///
    /// # Errors
    /// The database failed, or holds what can't be read.
    pub async fn directory(&self, known: &Directory) -> Result<Directory, StoreError> {
        let rows: Vec<AgencyRow> =
            query("SELECT address, name, country, sectors, groups, state, services FROM agency")
                .fetch_all(&self.readers)
                .await?;
        let mut keys = self.keys().await?;
        rows.into_iter()
            .map(|row| {
                let agency = read(row)?;
                let records = keys.remove(&agency.address).unwrap_or_default();
                let proven = known.get(&agency.address).map(|known| &known.keys);
                let proven = proven.filter(|keys| keys.iter().map(|key| &key.signed).eq(&records));
                let keys = match proven {
                    Some(proven) => Ok(proven.clone()),
                    None if records.is_empty() => Ok(Vec::new()),
                    None => prove_chain(&records),
                };
                Ok(Agency { keys: keys.map_err(|_| StoreError::Corrupt("key record"))?, ..agency })
            })
            .collect()
    }

    /// Adds an agency, unless its address is taken or was revoked for good.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_agency(&self, agency: &Agency, act: Act<'_>) -> Result<Addition, StoreError> {
        let mut change = self.writer.begin().await?;
        let address = agency.address.to_string();
        let (taken, revoked, agencies): (bool, bool, u32) = query(
            "SELECT EXISTS (SELECT 1 FROM agency WHERE address = $1), \
             EXISTS (SELECT 1 FROM revoked_agency WHERE agency = $1), (SELECT count(*) FROM agency)",
        )
        .bind(&address)
        .fetch_one(&mut change)
        .await?;
        match () {
            () if revoked => return Ok(Addition::Revoked),
            () if taken => return Ok(Addition::Taken),
            () if agencies >= limits::AGENCIES => return Ok(Addition::Full),
            () => {}
        }
        let sectors: Vec<_> = agency.sectors.iter().map(|sector| sector.as_str_name()).collect();
        query(
            "INSERT INTO agency (address, name, country, sectors, groups, state, added, services) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&address)
        .bind(&agency.name)
        .bind(&agency.country)
        .bind(sectors.join(" "))
        .bind(agency.groups.join(" "))
        .bind(i32::from(agency.state))
        .bind(millis(act.at))
        .bind(agency.services.encode_to_vec())
        .execute(&mut change)
        .await?;
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        Ok(Addition::Added)
    }

    /// Replaces what is said of an agency's services.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_services(
        &self,
        address: &AgencyAddress,
        services: &Services,
        act: Act<'_>,
    ) -> Result<(), StoreError> {
        let mut change = self.writer.begin().await?;
        query("UPDATE agency SET services = $1 WHERE address = $2")
            .bind(services.encode_to_vec())
            .bind(address.to_string())
            .execute(&mut change)
            .await?;
        self.stager.record(&mut change, act).await?;
        change.commit_told().await?;
        Ok(())
    }

    /// Suspends or resumes an agency. False, and nothing changed, if it is revoked.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_agency_state(
        &self,
        address: &AgencyAddress,
        state: AgencyState,
        act: Act<'_>,
    ) -> Result<bool, StoreError> {
        let mut change = self.writer.begin().await?;
        let changed = query("UPDATE agency SET state = $1 WHERE address = $2 AND state <> $3")
            .bind(i32::from(state))
            .bind(address.to_string())
            .bind(i32::from(AgencyState::Revoked))
            .execute(&mut change)
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        self.stager.record(&mut change, act).await?;
        self.commit_state(change).await?;
        Ok(true)
    }
}

impl Stager {
    /// Records an administrative act with what it changes, in the log and in the audit, of which past the limit the
    /// oldest goes.
    pub(super) async fn record(&self, change: &mut Transaction, act: Act<'_>) -> Result<(), StoreError> {
        query("INSERT INTO audit (at, actor, act, subject) VALUES ($1, $2, $3, $4)")
            .bind(millis(act.at))
            .bind(act.actor)
            .bind(act.act)
            .bind(act.subject)
            .execute(&mut *change)
            .await?;
        // By their place, for a server leaves numbers out.
        query("DELETE FROM audit WHERE seq <= (SELECT seq FROM audit ORDER BY seq DESC LIMIT 1 OFFSET $1)")
            .bind(limits::AUDIT_ENTRIES)
            .execute(&mut *change)
            .await?;
        self.append(change, [&act.leaf()?]).await
    }
}

fn read(row: AgencyRow) -> Result<Agency, StoreError> {
    let (address, name, country, sectors, groups, state, services) = row;
    let sectors = sectors.split_whitespace().map(Sector::from_str_name).collect::<Option<_>>();
    let (Ok(address), Some(sectors), Ok(state)) = (address.parse(), sectors, AgencyState::try_from(state))
    else {
        return Err(StoreError::Corrupt("agency"));
    };
    Ok(Agency {
        address,
        name,
        country,
        sectors,
        groups: groups.split_whitespace().map(str::to_owned).collect(),
        state,
        listed: true,
        services: decode(services)?,
        keys: Vec::new(),
    })
}
