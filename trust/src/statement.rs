//! Signed statements: what a gateway or a recipient puts its name to.

use bytes::Bytes;
use liaison_proto::{
    federation::v1::{Bundle, DirectoryPage, SignedBundle, SignedDirectoryPage},
    message::v1::{
        Acceptance, Acknowledgement, Notice, ReleaseRecord, SignedAcceptance, SignedAcknowledgement,
        SignedNotice, SignedReleaseRecord,
    },
    strict::{self, StrictError},
};
use prost::{Message, Name};

use crate::keys::{BadSignature, SigningKey, VerifyingKey};

/// A message that is signed as bytes, under a label of its own.
pub trait Statement: Message + Name + Default {
    /// The bytes with their signature.
    type Signed;
    /// What the signature says that the bytes are.
    const LABEL: &'static str;

    /// Puts bytes and signature together.
    fn join(bytes: Bytes, signature: Bytes) -> Self::Signed;
    /// The bytes and the signature.
    fn parts(signed: &Self::Signed) -> (&Bytes, &Bytes);
}

/// Why a signed statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    #[error("the signature over {0} does not verify")]
    BadSignature(&'static str),
    #[error(transparent)]
    Strict(#[from] StrictError),
}

/// Signs a statement.
pub fn sign<S: Statement>(statement: &S, key: &SigningKey) -> S::Signed {
    let bytes = Bytes::from(statement.encode_to_vec());
    let signature = Bytes::copy_from_slice(&key.sign(S::LABEL, &bytes));
    S::join(bytes, signature)
}

/// Reads a statement that the holder of `key` signed.
///
/// # Errors
/// The signature does not verify, or the statement holds what this version does not know.
pub fn read<S: Statement>(signed: &S::Signed, key: &VerifyingKey) -> Result<S, StatementError> {
    let (bytes, signature) = S::parts(signed);
    key.verify(S::LABEL, bytes, signature).map_err(|BadSignature| StatementError::BadSignature(S::LABEL))?;
    Ok(strict::decode(bytes)?)
}

macro_rules! statement {
    ($statement:ty, $signed:ident { $bytes:ident }, $label:literal) => {
        impl Statement for $statement {
            type Signed = $signed;
            const LABEL: &'static str = $label;

            fn join($bytes: Bytes, signature: Bytes) -> $signed {
                $signed { $bytes, signature }
            }

            fn parts(signed: &$signed) -> (&Bytes, &Bytes) {
                (&signed.$bytes, &signed.signature)
            }
        }
    };
}

statement!(Acceptance, SignedAcceptance { acceptance }, "acceptance/v1");
statement!(Notice, SignedNotice { notice }, "notice/v1");
statement!(ReleaseRecord, SignedReleaseRecord { record }, "release-record/v1");
statement!(Acknowledgement, SignedAcknowledgement { acknowledgement }, "acknowledgement/v1");
statement!(Bundle, SignedBundle { bundle }, "bundle/v1");
statement!(DirectoryPage, SignedDirectoryPage { page }, "directory/v1");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_believed_of_its_signer_alone() {
        let (gateway, other) = (SigningKey::generate(), SigningKey::generate());
        let acceptance = Acceptance { policy_hash: vec![1; 32].into(), ..Acceptance::default() };
        let signed = sign(&acceptance, &gateway);
        assert_eq!(read::<Acceptance>(&signed, &gateway.public()), Ok(acceptance));
        let refused = Err(StatementError::BadSignature("acceptance/v1"));
        assert_eq!(read::<Acceptance>(&signed, &other.public()), refused);
        let mut changed = signed.clone();
        changed.acceptance = Bytes::new();
        assert_eq!(read::<Acceptance>(&changed, &gateway.public()), refused);
        // The same bytes as another statement.
        let notice = SignedNotice { notice: signed.acceptance, signature: signed.signature };
        let refused = Err(StatementError::BadSignature("notice/v1"));
        assert_eq!(read::<Notice>(&notice, &gateway.public()), refused);
    }

    #[test]
    fn an_unknown_field_is_refused_though_it_is_signed() {
        let gateway = SigningKey::generate();
        // Field 100, a varint.
        let notice = Bytes::from_static(&[0xa0, 0x06, 0x01]);
        let signature = gateway.sign(Notice::LABEL, &notice).to_vec().into();
        let read = read::<Notice>(&SignedNotice { notice, signature }, &gateway.public());
        assert!(matches!(read, Err(StatementError::Strict(StrictError::UnknownField { number: 100, .. }))));
    }
}
