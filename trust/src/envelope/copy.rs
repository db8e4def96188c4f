//! One recipient's copy: what was withheld is not in it.

use bytes::Bytes;
use liaison_proto::message::v1::{
    RecipientProof, SealedCopy, SealedSection, SignedKeyRecord, SignedReleaseRecord,
};

/// Makes a recipient's copy. Sections and wrapped keys at other positions than the released ones are
/// dropped; where nothing is released, so is the encapsulation, which nothing would bind.
pub fn copy(
    manifest: Bytes,
    signature: Bytes,
    sender_key: SignedKeyRecord,
    mut proof: RecipientProof,
    sections: impl Iterator<Item = SealedSection>,
    release: SignedReleaseRecord,
    released: &[u32],
) -> SealedCopy {
    proof.wrapped_keys.retain(|wrapped| released.contains(&wrapped.position));
    if proof.wrapped_keys.is_empty() {
        proof.encapsulation = Bytes::new();
    }
    SealedCopy {
        manifest,
        signature,
        sender_key: Some(sender_key),
        recipient: Some(proof),
        sections: sections.filter(|section| released.contains(&section.position)).collect(),
        release: Some(release),
        sender_keys: Vec::new(),
    }
}
