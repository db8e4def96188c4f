//! Requests to refer a received referral onward: asked of its originator, and answered by it, in the
//! referral's own thread.

use liaison_proto::{
    message::v1::{
        OnwardRequest as Said, Refusal, StateChange, data_category::Code as Category,
        error_code::Code as ErrorCode, kind::Code as Kind, onward_step::Code as Step,
        purpose::Code as Purpose,
    },
    referral::Party,
};
use liaison_trust::names::AgencyAddress;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Direction, Incoming, Receipt, Store, StoreError,
    add::{audit, insert, to_ms},
    codec, draft,
    receive::{malformed, of_this_thread},
    states::{self, Standing},
    writer::Change,
};
use crate::outbox::NewMessage;

/// A request, as either side keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct OnwardRequest {
    pub id: Uuid,
    /// Sent: this agency asks.
    pub direction: Direction,
    /// The referral that it is about.
    pub referral: Uuid,
    /// Who asks.
    pub asker: AgencyAddress,
    pub originator: AgencyAddress,
    /// The agency that would get it.
    pub to: AgencyAddress,
    pub purpose: Purpose,
    /// Ascending.
    pub categories: Vec<Category>,
    pub step: Step,
    pub asked: OffsetDateTime,
    pub answered: Option<OffsetDateTime>,
}

/// What is to be asked of the originator of a received referral.
pub struct Question {
    pub referral: Uuid,
    pub to: AgencyAddress,
    pub purpose: Purpose,
    /// Ascending; at least one.
    pub categories: Vec<Category>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Vec<u8>,
    direction: i64,
    referral: Vec<u8>,
    asker: String,
    originator: String,
    recipient: String,
    purpose: i64,
    categories: Vec<u8>,
    step: i64,
    asked: i64,
    answered: Option<i64>,
}

impl Store {
    /// The request that settles a question: one that was granted for all of it, else one that waits for its
    /// answer, else one that was denied for all of it; else the question is asked now, on behalf of `actor`.
    ///
    /// Refused as `unknown_message`.
    pub async fn ask_onward(&self, question: &Question, actor: &str) -> Result<OnwardRequest, Refusal> {
        let mut tx = self.begin().await?;
        let known = requests_like(&mut tx, question).await?;
        let settles = |step: Step| {
            known.iter().find(|request| {
                let covers = question.categories.iter().all(|asked| request.categories.contains(asked));
                request.step == step && (covers || step == Step::Asked)
            })
        };
        if let Some(request) =
            settles(Step::Granted).or_else(|| settles(Step::Asked)).or_else(|| settles(Step::Denied))
        {
            let request = request.clone();
            tx.commit().await?;
            return Ok(request);
        }
        let (standing, thread) = states::by_id(&mut tx, question.referral)
            .await?
            .filter(|(standing, _)| standing.own_party() == Party::Responder)
            .ok_or_else(unknown)?;
        let request = OnwardRequest {
            id: Uuid::now_v7(),
            direction: Direction::Sent,
            referral: question.referral,
            asker: self.address().clone(),
            originator: standing.other.clone(),
            to: question.to.clone(),
            purpose: question.purpose,
            categories: question.categories.clone(),
            step: Step::Asked,
            asked: to_ms(OffsetDateTime::now_utc()),
            answered: None,
        };
        let message = self.say(&mut tx, &standing, thread, &request, request.asked)?;
        insert_request(&mut tx, &request, message);
        audit(&mut tx, request.asked, actor, "ask_onward", question.referral);
        tx.commit().await?;
        self.wake_outbox();
        Ok(request)
    }

    /// Grants or denies a request that this agency was asked. The same answer again changes nothing.
    ///
    /// Refused as `unknown_message`, and as `transition_not_allowed` where it was answered otherwise.
    pub async fn answer_onward(&self, id: Uuid, step: Step, actor: &str) -> Result<OnwardRequest, Refusal> {
        let mut tx = self.begin().await?;
        let asked = request(&mut tx, id).await?.filter(|request| request.direction == Direction::Received);
        let mut request = asked.ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownMessage,
                "this agency was not asked by a request of this id",
                "list the requests that were received, and take an id from there",
            )
        })?;
        if request.step == step {
            tx.commit().await?;
            return Ok(request);
        }
        if request.step != Step::Asked {
            return Err(answered(request.step));
        }
        let (standing, thread) = states::by_id(&mut tx, request.referral).await?.ok_or_else(unknown)?;
        let now = to_ms(OffsetDateTime::now_utc());
        (request.step, request.answered) = (step, Some(now));
        let message = self.say(&mut tx, &standing, thread, &request, now)?;
        set_answer(&mut tx, &request, message);
        let action = if step == Step::Granted { "grant_onward" } else { "deny_onward" };
        audit(&mut tx, now, actor, action, request.referral);
        tx.commit().await?;
        self.wake_outbox();
        Ok(request)
    }

    /// Requests, newest first, behind the request `after`.
    pub async fn onward_requests(
        &self,
        direction: Option<Direction>,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<OnwardRequest>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select * from onward_requests where (?1 is null or direction = ?1) \
             and (?2 is null or seq < (select seq from onward_requests where id = ?2)) \
             order by seq desc limit ?3",
        )
        .bind(direction.map(Direction::column))
        .bind(after.map(|id| id.as_bytes().to_vec()))
        .bind(limit)
        .fetch_all(self.readers())
        .await?;
        rows.into_iter().map(read).collect()
    }

    pub(super) async fn receive_onward(
        &self,
        tx: &mut Change,
        message: &Incoming,
    ) -> Result<Receipt, StoreError> {
        let standing = match of_this_thread(tx, message).await? {
            Ok(standing) => standing,
            Err(refusal) => return Ok(Receipt::Refused(refusal)),
        };
        let Some(said) = &message.onward else {
            return Ok(Receipt::Refused(malformed("an onward message without a request")));
        };
        let Some(said) = told(&standing, said, message, self.address()) else {
            return Ok(Receipt::Refused(malformed("the onward request is not well formed")));
        };
        let known = request(tx, said.id).await?;
        let refusal = match (said.direction, known) {
            (direction, _) if standing.own_party() != own_party(direction) => Some(Refusal::new(
                ErrorCode::NotAParty,
                "this step is not the sender's",
                "the recipient of a referral asks whether it may refer it onward, and the originator answers",
            )),
            (Direction::Received, Some(_)) => Some(Refusal::new(
                ErrorCode::IdReused,
                "the request's id is that of another request",
                "the sender must give each request an id of its own",
            )),
            (Direction::Received, None) => None,
            (Direction::Sent, known) => wrong_answer(known.as_ref(), &said),
        };
        if let Some(refusal) = refusal {
            return Ok(Receipt::Refused(refusal));
        }
        self.insert(tx, message, StateChange::default());
        match said.direction {
            Direction::Received => insert_request(tx, &said, message.id),
            Direction::Sent => set_answer(tx, &said, message.id),
        }
        Ok(Receipt::Held { thread_state: None, is_new: true })
    }

    /// Puts the message that tells the other party of the referral about a request into the outbox.
    fn say(
        &self,
        tx: &mut Change,
        standing: &Standing,
        thread: Uuid,
        request: &OnwardRequest,
        now: OffsetDateTime,
    ) -> Result<Uuid, StoreError> {
        let said = Said {
            request: request.id.as_bytes().to_vec().into(),
            step: request.step.into(),
            to: request.to.to_string(),
            purpose: request.purpose.into(),
            categories: request.categories.iter().map(|category| i32::from(*category)).collect(),
        };
        let message =
            NewMessage { onward: Some(said), ..states::message(standing, thread, Kind::Onward, now)? };
        let sealed = draft::seal(self.vault(), message.id, None, &message.sections, &message.recipients);
        insert(tx, self.address().to_string(), &message, Some(&sealed));
        Ok(message.id)
    }
}

/// A message about a request did not reach the other agency: what was asked may be asked again, and what
/// was answered answered again.
pub(super) fn not_delivered(tx: &mut Change, message: Uuid) {
    let message = message.as_bytes().as_slice();
    tx.write("delete from onward_requests where question = ? and direction = ? and step = ?")
        .bind(message)
        .bind(Direction::Sent.column())
        .bind(i32::from(Step::Asked));
    tx.write(
        "update onward_requests set step = ?, answered = null, answer = null where answer = ? and direction = ?",
    )
    .bind(i32::from(Step::Asked))
    .bind(message)
    .bind(Direction::Received.column());
}

/// What a received message says of a request, as this side would keep it; none where nobody could mean it.
///
/// Whether the referral held the categories is not judged: the answer would tell the asker what was
/// withheld from it.
fn told(standing: &Standing, said: &Said, message: &Incoming, me: &AgencyAddress) -> Option<OnwardRequest> {
    let (direction, answered) = match said.step() {
        Step::Asked => (Direction::Received, None),
        Step::Granted | Step::Denied => (Direction::Sent, Some(message.received_at)),
        Step::Unspecified => return None,
    };
    let (asker, originator) = match direction {
        Direction::Received => (message.sender.clone(), me.clone()),
        Direction::Sent => (me.clone(), message.sender.clone()),
    };
    let to: AgencyAddress = said.to.parse().ok()?;
    if to == asker || to == originator || said.purpose() == Purpose::Unspecified {
        return None;
    }
    Some(OnwardRequest {
        id: Uuid::from_slice(&said.request).ok()?,
        direction,
        referral: standing.id,
        asker,
        originator,
        to,
        purpose: said.purpose(),
        categories: said.categories().collect(),
        step: said.step(),
        asked: message.received_at,
        answered,
    })
}

/// What this agency is to a referral about which a request of this direction can be.
fn own_party(direction: Direction) -> Party {
    match direction {
        Direction::Sent => Party::Responder,
        Direction::Received => Party::Requester,
    }
}

/// Why an answer can't be taken; none where it answers what this agency asked, or says the same again.
fn wrong_answer(known: Option<&OnwardRequest>, said: &OnwardRequest) -> Option<Refusal> {
    let asked = known.filter(|known| known.direction == Direction::Sent && known.referral == said.referral);
    let Some(asked) = asked else {
        return Some(Refusal::new(
            ErrorCode::UnknownMessage,
            "the answer is to a request that this agency did not make in this thread",
            "answer a request that was received",
        ));
    };
    let same = (&asked.to, asked.purpose, &asked.categories) == (&said.to, said.purpose, &said.categories);
    if !same {
        return Some(malformed("the answer is not to what this agency asked"));
    }
    (asked.step != Step::Asked && asked.step != said.step).then(|| answered(asked.step))
}

fn answered(step: Step) -> Refusal {
    Refusal::new(
        ErrorCode::TransitionNotAllowed,
        format!("the request was {} already", step.as_str_name()),
        "a request is answered once; the other agency may ask anew",
    )
}

fn unknown() -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMessage,
        "this agency received no referral of this id",
        "list the referrals and take an id from there",
    )
}

/// The requests of this agency for the same referral, agency and purpose, newest first.
async fn requests_like(tx: &mut Change, question: &Question) -> Result<Vec<OnwardRequest>, StoreError> {
    let rows: Vec<Row> = tx
        .ask(
            "select * from onward_requests where referral = ? and recipient = ? and purpose = ? \
             and direction = ? order by seq desc",
        )
        .bind(question.referral.as_bytes().as_slice())
        .bind(question.to.to_string())
        .bind(i32::from(question.purpose))
        .bind(Direction::Sent.column())
        .all()
        .await?;
    rows.into_iter().map(read).collect()
}

async fn request(tx: &mut Change, id: Uuid) -> Result<Option<OnwardRequest>, StoreError> {
    let row = tx.ask("select * from onward_requests where id = ?").bind(id.as_bytes().as_slice());
    row.first().await?.map(read).transpose()
}

fn insert_request(tx: &mut Change, request: &OnwardRequest, question: Uuid) {
    tx.write(
        "insert into onward_requests (id, direction, referral, asker, originator, recipient, purpose, \
         categories, step, asked, question) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(request.id.as_bytes().as_slice())
    .bind(request.direction.column())
    .bind(request.referral.as_bytes().as_slice())
    .bind(request.asker.to_string())
    .bind(request.originator.to_string())
    .bind(request.to.to_string())
    .bind(i32::from(request.purpose))
    .bind(codec::categories(request.categories.iter()))
    .bind(i32::from(request.step))
    .bind(codec::ms(request.asked))
    .bind(question.as_bytes().as_slice());
}

/// Sets the answer of a request that has none yet.
fn set_answer(tx: &mut Change, request: &OnwardRequest, answer: Uuid) {
    tx.write("update onward_requests set step = ?, answered = ?, answer = ? where id = ? and answer is null")
        .bind(i32::from(request.step))
        .bind(request.answered.map(codec::ms))
        .bind(answer.as_bytes().as_slice())
        .bind(request.id.as_bytes().as_slice());
}

fn read(row: Row) -> Result<OnwardRequest, StoreError> {
    Ok(OnwardRequest {
        id: codec::uuid(&row.id)?,
        direction: Direction::from_column(row.direction)?,
        referral: codec::uuid(&row.referral)?,
        asker: codec::address(&row.asker)?,
        originator: codec::address(&row.originator)?,
        to: codec::address(&row.recipient)?,
        purpose: codec::code(row.purpose)?,
        categories: codec::categories_of(&row.categories)?,
        step: codec::code(row.step)?,
        asked: codec::time(row.asked)?,
        answered: row.answered.map(codec::time).transpose()?,
    })
}
