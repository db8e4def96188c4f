//! The domain's new log in the place of one that this agent holds a head of: whether the domain names, in the record that
//! opened it, all that this agent saw of the one before.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use liaison_proto::{case::v1::log_alarm::Code as Kind, limits::REQUEST, message::v1::Refusal};
use liaison_trust::{
    keys::VerifyingKey,
    log::{Succession, SuccessionError},
};
use tokio::time::timeout;
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt};

use super::{Alarm, Failed, Head};
use crate::{
    limits,
    link::{Link, refusal},
};

/// Follows a new log back to the head that is held. Tells of it as an alarm, for what was lost behind that head nobody
/// shows; where the domain does not name that head, as one that history was cut off.
///
/// # Errors
/// The gateway can't be asked.
pub(super) async fn follow(
    link: &Link,
    key: &VerifyingKey,
    held: &Head,
    newest: &Head,
) -> Result<Alarm, Failed> {
    let origin = newest.checkpoint.origin();
    let alarm = |why: Option<String>, shown: String| {
        let before = held.checkpoint.origin();
        let (kind, detail) = match why {
            None => (
                Kind::NewLog,
                format!("{origin} has taken the place of {before}, of which this agent holds a head"),
            ),
            Some(why) => (Kind::Inconsistent, format!("{origin} has taken the place of {before}: {why}")),
        };
        Alarm { kind, subject: origin.to_owned(), detail, held: held.bare.to_string(), shown }
    };
    let refused = |error: SuccessionError, shown: String| Ok(alarm(Some(error.to_string()), shown));
    let mut shown = newest.bare.to_string();
    let mut way = match Succession::new(*key, &held.checkpoint, origin) {
        Ok(way) => way,
        Err(error) => return refused(error, shown),
    };
    loop {
        let wanted = way.wanted().to_string();
        let Some(receipt) = opened(link, &wanted).await? else {
            return Ok(alarm(Some(format!("the gateway shows no record that opened {wanted}")), shown));
        };
        shown = String::from_utf8_lossy(&receipt).into_owned();
        match way.take(&receipt) {
            Ok(true) => return Ok(alarm(None, shown)),
            Ok(false) => {}
            Err(error) => return refused(error, shown),
        }
    }
}

/// The receipt of the record that opened a log, by its origin; none if the gateway shows none.
async fn opened(link: &Link, origin: &str) -> Result<Option<Bytes>, Refusal> {
    let path = format!("/{origin}/opened");
    let broke = |error: &dyn std::fmt::Display| {
        refusal(&Status::unavailable(format!("{path} was not answered: {error}")))
    };
    let request = Request::get(format!("http://gateway{path}")).body(Body::empty());
    let request = request.map_err(|error| broke(&error))?;
    let mut channel = link.channel()?;
    let asked = async {
        let answer = channel.ready().await.map_err(|error| broke(&error))?.call(request).await;
        let answer = answer.map_err(|error| broke(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(broke(&status)),
        }
        let body = Limited::new(answer.into_body(), limits::OPENED_BYTES).collect().await;
        Ok(Some(body.map_err(|error| broke(&error))?.to_bytes()))
    };
    timeout(REQUEST, asked).await.map_err(|late| broke(&late))?
}
