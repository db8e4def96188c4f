//! A draft as it is sealed under the vault: what of a message nobody but its recipients may read, and
//! whom it is for.

use std::collections::BTreeMap;

use liaison_proto::message::v1::{
    CategoryBasis, Facts, basis::Code as Basis, data_category::Code as Category,
};
use liaison_trust::{names::AgencyAddress, vault::Vault};
use prost::Message;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{StoreError, codec};

/// The sealed part of a draft.
pub(super) struct Draft {
    pub(super) facts: Option<Facts>,
    pub(super) sections: BTreeMap<Category, Zeroizing<Vec<u8>>>,
    pub(super) recipients: Vec<(AgencyAddress, BTreeMap<Category, Basis>)>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Encoded {
    #[prost(message, optional, tag = "1")]
    facts: Option<Facts>,
    #[prost(message, repeated, tag = "2")]
    sections: Vec<EncodedSection>,
    #[prost(message, repeated, tag = "3")]
    recipients: Vec<EncodedRecipient>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct EncodedSection {
    #[prost(int32, tag = "1")]
    category: i32,
    #[prost(bytes = "vec", tag = "2")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct EncodedRecipient {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(message, repeated, tag = "2")]
    bases: Vec<CategoryBasis>,
}

/// Seals the draft of the message `id`.
pub(super) fn seal(
    vault: &Vault,
    id: Uuid,
    facts: Option<Facts>,
    sections: &BTreeMap<Category, Zeroizing<Vec<u8>>>,
    recipients: &[(AgencyAddress, BTreeMap<Category, Basis>)],
) -> Vec<u8> {
    let bases = |bases: &BTreeMap<Category, Basis>| {
        bases
            .iter()
            .map(|(category, basis)| CategoryBasis { category: (*category).into(), basis: (*basis).into() })
            .collect()
    };
    let mut encoded = Encoded {
        facts,
        sections: sections
            .iter()
            .map(|(category, plaintext)| EncodedSection {
                category: (*category).into(),
                plaintext: plaintext.to_vec(),
            })
            .collect(),
        recipients: recipients
            .iter()
            .map(|(address, of)| EncodedRecipient { address: address.to_string(), bases: bases(of) })
            .collect(),
    };
    let plaintext = Zeroizing::new(encoded.encode_to_vec());
    for section in &mut encoded.sections {
        drop(Zeroizing::new(std::mem::take(&mut section.plaintext)));
    }
    vault.seal(&context(id), &plaintext)
}

/// Opens the draft of the message `id`.
pub(super) fn open(vault: &Vault, id: Uuid, sealed: &[u8]) -> Result<Draft, StoreError> {
    let plaintext = vault.open(&context(id), sealed).map_err(|_| StoreError::Sealed("draft"))?;
    let encoded: Encoded = codec::message(&plaintext)?;
    let bases = |bases: &[CategoryBasis]| {
        bases
            .iter()
            .map(|basis| Ok((codec::code(basis.category.into())?, codec::code(basis.basis.into())?)))
            .collect::<Result<_, StoreError>>()
    };
    Ok(Draft {
        facts: encoded.facts,
        sections: encoded
            .sections
            .into_iter()
            .map(|section| Ok((codec::code(section.category.into())?, Zeroizing::new(section.plaintext))))
            .collect::<Result<_, StoreError>>()?,
        recipients: encoded
            .recipients
            .iter()
            .map(|recipient| Ok((codec::address(&recipient.address)?, bases(&recipient.bases)?)))
            .collect::<Result<_, StoreError>>()?,
    })
}

fn context(id: Uuid) -> Vec<u8> {
    [b"draft/", id.as_bytes().as_slice()].concat()
}
