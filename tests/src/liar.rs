//! The called side of a hostile gateway: it takes the links of its peer, and answers with lies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use liaison_demo::{Gateway, wait::PATIENCE};
use liaison_proto::{
    federation::v1::{
        AcceptedChunk, Done, Forward, Refused, SignedBundle, link_request::Frame as Request,
        link_response::Frame as Response,
    },
    message::v1::{
        Acceptance, Acceptances, Manifest, RecipientDecision, Refusal, Rule, SignedAcceptance,
        error_code::Code as ErrorCode, verdict::Code as Verdict,
    },
    times,
};
use liaison_trust::{
    digest::{Digest, sha256},
    keys::SigningKey,
    statement,
};
use prost::Message;
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use crate::{
    called::{Called, Link},
    hostile::Hostile,
};

/// What it answers to a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: an honest acceptance.
    Honest,
    /// An acceptance that names another recipient.
    OtherRecipient,
    /// Acceptances of more recipients than there are.
    OneTooMany,
    /// An acceptance that another key signed.
    NotSigned,
    /// An acceptance of another manifest.
    OtherDigest,
    /// An acceptance that decides nothing.
    NoVerdict,
    /// The answer to a notice.
    Done,
    /// An answer to a frame that was never sent.
    OtherNumber,
    /// Bytes that are no acceptances.
    Garbage,
    /// Nothing, ever.
    Silent,
    /// That the recipient's queue is full, of what this agency sends.
    FullFor(&'static str),
    /// That the message has expired.
    Expired,
    /// That it takes nothing now, for a reason of each recipient.
    Later(&'static [(&'static str, ErrorCode)]),
    /// Of this recipient, an acceptance with a field of a newer version.
    Newer(&'static str),
    /// Of this recipient, a decision by a rule of the asker's own country.
    OtherLayer(&'static str),
}

/// A hostile gateway that is called.
pub struct Liar {
    server: JoinHandle<()>,
    forwards: mpsc::UnboundedReceiver<Forward>,
}

/// How it answers.
struct Script {
    signing: SigningKey,
    /// What stands in its welcome.
    bundle: SignedBundle,
    log: u32,
    lie: Lie,
}

impl Liar {
    /// Takes the link of a gateway to this hostile domain, with a bundle that is newer than all before.
    pub async fn of(hostile: &Hostile, gateway: &Gateway, lie: Lie) -> Result<Self> {
        Self::with_log(hostile, gateway, lie, 0).await
    }

    /// The same, where it says that it signs the log of this number.
    pub async fn with_log(hostile: &Hostile, gateway: &Gateway, lie: Lie, log: u32) -> Result<Self> {
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos())?;
        Self::with(hostile, gateway, lie, (hostile.sign(&hostile.bundle(now)), log)).await
    }

    /// The same with this bundle.
    pub async fn with_bundle(
        hostile: &Hostile,
        gateway: &Gateway,
        lie: Lie,
        bundle: SignedBundle,
    ) -> Result<Self> {
        Self::with(hostile, gateway, lie, (bundle, 0)).await
    }

    async fn with(
        hostile: &Hostile,
        gateway: &Gateway,
        lie: Lie,
        (bundle, log): (SignedBundle, u32),
    ) -> Result<Self> {
        let mut called = Called::of(hostile, gateway).await?;
        let (heard, forwards) = mpsc::unbounded_channel();
        let signing = SigningKey::from_seed(&hostile.signing.seed());
        let script = Arc::new(Script { signing, bundle, log, lie });
        let server = tokio::spawn(async move {
            // They end with it.
            let mut links = JoinSet::new();
            while let Some(link) = called.begun().await {
                let (script, heard) = (Arc::clone(&script), heard.clone());
                links.spawn(async move { script.answer(link, heard).await });
            }
        });
        Ok(Self { server, forwards })
    }

    /// Whether it was forwarded nothing that the test has not taken yet.
    pub fn heard_nothing(&self) -> bool {
        self.forwards.is_empty()
    }

    /// The next message that it was forwarded; none where none comes.
    pub async fn forwarded(&mut self) -> Option<Forward> {
        tokio::time::timeout(PATIENCE, self.forwards.recv()).await.ok().flatten()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Script {
    async fn answer(&self, mut link: Link, heard: mpsc::UnboundedSender<Forward>) {
        let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        while let Some(frame) = link.frame().await {
            let answered = match frame {
                Request::Hello(_) => link.welcome(self.bundle.clone(), self.log).await,
                Request::Forward(chunk) => {
                    let whole = parts.entry(chunk.number).or_default();
                    whole.extend_from_slice(&chunk.data);
                    if !chunk.last {
                        continue;
                    }
                    let whole = parts.remove(&chunk.number).unwrap_or_default();
                    let Ok(forward) = Forward::decode(whole.as_slice()) else { return };
                    let answer = self.forwarded(chunk.number, &forward);
                    // The test may have heard enough.
                    let _ = heard.send(forward);
                    match answer {
                        Some(answer) => link.answer(answer).await,
                        None => continue,
                    }
                }
                Request::Notice(notice) => link.done(notice.number).await,
                Request::Directory(change) => link.done(change.number).await,
                Request::Renewal(renewal) => link.done(renewal.number).await,
            };
            if answered.is_err() {
                return;
            }
        }
    }

    fn forwarded(&self, number: u64, forward: &Forward) -> Option<Response> {
        let data = match self.lie {
            Lie::Silent => return None,
            Lie::FullFor(of) if forward.sender.as_ref().is_some_and(|sender| sender.address == of) => {
                return Some(later(number, ErrorCode::QueueFull));
            }
            Lie::Later(reasons) => {
                let first = forward.recipients.first()?.proof.as_ref()?;
                let (_, code) = reasons.iter().find(|(of, _)| *of == first.address)?;
                return Some(later(number, *code));
            }
            Lie::Expired => {
                let refusal = Some(Refusal::new(ErrorCode::Expired, "too old", "send it anew"));
                return Some(Response::Refused(Refused { number, refusal }));
            }
            Lie::Done => return Some(Response::Done(Done { number })),
            Lie::OtherNumber => {
                let refusal = Some(Refusal::new(ErrorCode::Suspended, "a lie", "none"));
                return Some(Response::Refused(Refused { number: number + 1_000, refusal }));
            }
            Lie::Garbage => Bytes::from_static(&[0xff; 64]),
            _ => self.acceptances(forward).encode_to_vec().into(),
        };
        Some(Response::Accepted(AcceptedChunk { number, data, last: true }))
    }

    fn acceptances(&self, forward: &Forward) -> Acceptances {
        let recipients = forward.recipients.iter().filter_map(|recipient| recipient.proof.as_ref());
        let mut acceptances: Vec<SignedAcceptance> =
            recipients.map(|proof| self.acceptance(forward, &proof.address)).collect();
        if self.lie == Lie::OneTooMany {
            acceptances.push(self.acceptance(forward, "xx/nobody"));
        }
        Acceptances { acceptances }
    }

    fn acceptance(&self, forward: &Forward, asked: &str) -> SignedAcceptance {
        let manifest = Manifest::decode(forward.manifest.clone()).unwrap_or_default();
        let recipient = if self.lie == Lie::OtherRecipient { "xx/nobody" } else { asked };
        let verdict = if self.lie == Lie::NoVerdict { Verdict::Unspecified } else { Verdict::Released };
        let digest = if self.lie == Lie::OtherDigest { Digest([9; 32]) } else { sha256(&forward.manifest) };
        let acceptance = Acceptance {
            message_id: manifest.message_id,
            manifest_digest: digest.into(),
            accepted_at: Some(times::to_wire(OffsetDateTime::now_utc())),
            policy_hash: Digest([1; 32]).into(),
            scheme_hash: Digest([2; 32]).into(),
            decisions: vec![RecipientDecision {
                recipient: recipient.to_owned(),
                verdict: verdict.into(),
                rule: matches!(self.lie, Lie::OtherLayer(of) if of == asked).then(|| Rule {
                    layer: "country/be".to_owned(),
                    rule: "be-secrecy".to_owned(),
                    ..Rule::default()
                }),
                ..RecipientDecision::default()
            }],
        };
        if matches!(self.lie, Lie::Newer(of) if of == asked) {
            // Field 1000, a varint.
            let acceptance = Bytes::from([acceptance.encode_to_vec(), vec![0xc0, 0x3e, 0x01]].concat());
            let signature = Bytes::copy_from_slice(&self.signing.sign("acceptance/v1", &acceptance));
            return SignedAcceptance { acceptance, signature };
        }
        let other = SigningKey::generate();
        statement::sign(&acceptance, if self.lie == Lie::NotSigned { &other } else { &self.signing })
    }
}

fn later(number: u64, code: ErrorCode) -> Response {
    let refusal = Refusal::new(code, "it takes nothing now", "offer it again later");
    Response::Refused(Refused { number, refusal: Some(refusal.retry_after(Duration::from_secs(1))) })
}
