//! Where a referral stands, as a plain function of what is asked, heard or acknowledged. The responder's
//! agent orders the thread: what it says is so.

use liaison_proto::{
    message::v1::{
        Refusal, StateChange, error_code::Code as ErrorCode, outcome::Code as Outcome,
        referral_state::Code as State, rejection_reason::Code as Reason,
    },
    referral::{Party, allowed, is_final},
};

/// What this agency's own caseworker asks for: whether it changes anything.
///
/// Refused as `transition_not_allowed`, naming the allowed states, or where reason and outcome do not
/// fit the state.
pub(crate) fn ask(current: State, wanted: &StateChange, party: Party) -> Result<bool, Refusal> {
    let state = known(wanted.state, "state")?;
    if state == current {
        return Ok(false);
    }
    let allowed = allowed(current, party);
    if !allowed.contains(&state) {
        let allowed: Vec<_> = allowed.iter().map(State::as_str_name).collect();
        let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
        return Err(Refusal::new(
            ErrorCode::TransitionNotAllowed,
            format!(
                "a referral that is {} can't become {} by its {}",
                current.as_str_name(),
                state.as_str_name(),
                role(party)
            ),
            format!("choose one of the allowed states: {allowed}"),
        ));
    }
    let reason: Reason = known(wanted.reason, "reason")?;
    let outcome: Outcome = known(wanted.outcome, "outcome")?;
    let needs_reason = matches!(state, State::Rejected | State::Failed);
    let needs_outcome = state == State::Completed;
    match (needs_reason, reason, needs_outcome, outcome) {
        (true, Reason::Unspecified, _, _) => Err(missing(state, "reason")),
        (_, _, true, Outcome::Unspecified) => Err(missing(state, "outcome")),
        (false, reason, _, _) if reason != Reason::Unspecified => Err(surplus(state, "reason")),
        (_, _, false, outcome) if outcome != Outcome::Unspecified => Err(surplus(state, "outcome")),
        _ => Ok(true),
    }
}

/// Whether a state that the other party said takes effect.
pub(crate) fn hear(current: State, said: State, from: Party) -> bool {
    match from {
        // A state in between may have expired on the way: what the responder's own states lead to is so.
        Party::Responder => {
            let unheard = is_unheard(current);
            let here = if unheard { State::Received } else { current };
            (unheard && said == State::Received) || leads_to(here, said)
        }
        Party::Requester | Party::Gateway => allowed(current, from).contains(&said),
    }
}

/// Whether a requester's referral becomes `told`, the state that the responder stood at once it had
/// taken a message of the requester.
pub(crate) fn acknowledged(current: State, told: State) -> bool {
    let open = !is_final(current) || is_unheard(current);
    (told == State::Cancelled && open) || hear(current, told, Party::Responder)
}

/// Sent, and nothing heard from the responder yet. A gateway gives up what it hears nothing of, and the
/// responder may have it all the same.
fn is_unheard(state: State) -> bool {
    matches!(
        state,
        State::Submitted | State::Held | State::Released | State::Requested | State::Refused | State::Expired
    )
}

fn leads_to(from: State, to: State) -> bool {
    let mut seen = vec![from];
    let mut at = 0;
    while let Some(state) = seen.get(at).copied() {
        for next in allowed(state, Party::Responder) {
            if next == to {
                return true;
            }
            if !seen.contains(&next) {
                seen.push(next);
            }
        }
        at += 1;
    }
    false
}

fn known<T: TryFrom<i32>>(value: i32, field: &str) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| {
        Refusal::new(
            ErrorCode::UnknownValue,
            format!("{field} has a value {value} that this version does not know"),
            "send a value of this version's contracts",
        )
    })
}

fn missing(state: State, field: &str) -> Refusal {
    Refusal::new(
        ErrorCode::MissingField,
        format!("{} needs the field {field}, and there is none", state.as_str_name()),
        format!("give the {field}"),
    )
}

fn surplus(state: State, field: &str) -> Refusal {
    Refusal::new(
        ErrorCode::Malformed,
        format!("{} takes no field {field}", state.as_str_name()),
        format!("leave the {field} out"),
    )
}

fn role(party: Party) -> &'static str {
    match party {
        Party::Requester => "requester",
        Party::Responder => "recipient",
        Party::Gateway => "gateway",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(state: State, reason: Reason, outcome: Outcome) -> StateChange {
        StateChange { state: state.into(), reason: reason.into(), outcome: outcome.into() }
    }

    fn plain(state: State) -> StateChange {
        change(state, Reason::Unspecified, Outcome::Unspecified)
    }

    #[test]
    fn a_caseworker_moves_a_referral_as_its_party_may() {
        assert_eq!(ask(State::Received, &plain(State::Accepted), Party::Responder), Ok(true));
        assert_eq!(ask(State::Accepted, &plain(State::Accepted), Party::Responder), Ok(false));
        assert_eq!(ask(State::Requested, &plain(State::Cancelled), Party::Requester), Ok(true));

        let refusal = ask(State::Received, &plain(State::Completed), Party::Responder).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::TransitionNotAllowed);
        assert!(refusal.action.contains("accepted, rejected"), "{refusal}");
        let refusal = ask(State::Received, &plain(State::Accepted), Party::Requester).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::TransitionNotAllowed);
        assert!(refusal.action.contains("cancelled"), "{refusal}");
        let refusal = ask(State::Completed, &plain(State::Cancelled), Party::Requester).unwrap_err();
        assert!(refusal.action.contains("none"), "{refusal}");
    }

    #[test]
    fn reason_and_outcome_go_with_their_states_alone() {
        let code =
            |current, change| ask(current, &change, Party::Responder).map_err(|refusal| refusal.code());
        let (no_reason, no_outcome) = (Reason::Unspecified, Outcome::Unspecified);
        assert_eq!(code(State::Received, plain(State::Rejected)), Err(ErrorCode::MissingField));
        assert_eq!(code(State::Received, change(State::Rejected, Reason::Unsafe, no_outcome)), Ok(true));
        assert_eq!(code(State::Accepted, plain(State::Completed)), Err(ErrorCode::MissingField));
        assert_eq!(
            code(State::Accepted, change(State::Completed, no_reason, Outcome::ServiceProvided)),
            Ok(true)
        );
        assert_eq!(
            code(State::Received, change(State::Accepted, Reason::Unsafe, no_outcome)),
            Err(ErrorCode::Malformed)
        );
        assert_eq!(
            code(State::Received, change(State::Rejected, Reason::Unsafe, Outcome::Unavailable)),
            Err(ErrorCode::Malformed)
        );
        let unknown = StateChange { state: 99, reason: 0, outcome: 0 };
        assert_eq!(code(State::Received, unknown), Err(ErrorCode::UnknownValue));
    }

    #[test]
    fn the_responder_is_heard_even_when_a_state_in_between_was_lost() {
        assert!(hear(State::Requested, State::Received, Party::Responder));
        assert!(hear(State::Submitted, State::Accepted, Party::Responder));
        assert!(hear(State::Received, State::Completed, Party::Responder));
        assert!(hear(State::OnHold, State::InProgress, Party::Responder));
        assert!(!hear(State::Accepted, State::Received, Party::Responder), "an old state changes nothing");
        assert!(!hear(State::Rejected, State::Accepted, Party::Responder), "a final state is final");
        assert!(!hear(State::Received, State::Cancelled, Party::Responder), "that is the requester's");
        assert!(hear(State::Received, State::Cancelled, Party::Requester));
        assert!(!hear(State::Completed, State::Cancelled, Party::Requester));
        assert!(!hear(State::Received, State::Accepted, Party::Requester));
        assert!(hear(State::Requested, State::Expired, Party::Gateway));
        assert!(!hear(State::Received, State::Expired, Party::Gateway));
    }

    #[test]
    fn the_responder_s_word_goes_before_a_gateway_s_that_gave_up() {
        for given_up in [State::Refused, State::Expired] {
            for said in [State::Received, State::Accepted, State::Rejected, State::OnHold, State::Completed] {
                assert!(hear(given_up, said, Party::Responder), "{given_up:?} {said:?}");
                assert!(acknowledged(given_up, said), "{given_up:?} {said:?}");
            }
            assert!(acknowledged(given_up, State::Cancelled));
            assert!(!hear(given_up, State::Cancelled, Party::Responder), "that is the requester's");
            assert!(!acknowledged(given_up, State::Unspecified));
            for said in [State::Requested, State::Refused, State::Expired] {
                assert!(!hear(given_up, said, Party::Gateway), "a gateway gives up once");
                assert!(!hear(given_up, said, Party::Responder), "that is a gateway's");
                assert!(!hear(State::Received, said, Party::Gateway), "and not what was heard of");
            }
            assert!(ask(given_up, &plain(State::Cancelled), Party::Requester).is_err());
        }
    }

    #[test]
    fn a_cancel_is_what_the_responder_says_it_is() {
        assert!(acknowledged(State::InProgress, State::Cancelled));
        assert!(acknowledged(State::Accepted, State::Completed), "too late: it was completed");
        assert!(!acknowledged(State::Completed, State::Cancelled));
        assert!(acknowledged(State::Requested, State::Received));
        assert!(!acknowledged(State::Accepted, State::Unspecified));
    }
}
