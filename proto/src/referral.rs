//! The closed loop of a referral: which state may follow which, and who may set it.

use crate::message::v1::referral_state::Code as State;

/// A party to a referral.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The agency that sent the referral.
    Requester,
    /// The agency that it was sent to.
    Responder,
    /// Any gateway on the way.
    Gateway,
}

/// Who may set a state, wherever the referral stands.
pub fn setter(state: State) -> Option<Party> {
    match state {
        State::Unspecified => None,
        State::Draft | State::Submitted | State::Cancelled | State::Withdrawn | State::EnteredInError => {
            Some(Party::Requester)
        }
        State::Received
        | State::Accepted
        | State::Rejected
        | State::InProgress
        | State::OnHold
        | State::Completed
        | State::Failed => Some(Party::Responder),
        State::Held | State::Released | State::Refused | State::Requested | State::Expired => {
            Some(Party::Gateway)
        }
    }
}

/// The states that a party may set on a referral that stands at `state`.
pub fn allowed(state: State, party: Party) -> Vec<State> {
    next(state).iter().copied().filter(|next| setter(*next) == Some(party)).collect()
}

/// Whether nothing can follow.
pub fn is_final(state: State) -> bool {
    next(state).is_empty()
}

fn next(state: State) -> &'static [State] {
    match state {
        State::Unspecified => &[State::Draft],
        State::Draft => &[State::Submitted],
        State::Submitted => {
            &[State::Held, State::Refused, State::Requested, State::Expired, State::Cancelled]
        }
        State::Held => &[State::Released, State::Refused, State::Expired, State::Cancelled],
        State::Released => &[State::Requested, State::Expired, State::Cancelled],
        State::Requested => &[State::Received, State::Refused, State::Expired, State::Cancelled],
        State::Received => &[State::Accepted, State::Rejected, State::Cancelled],
        State::Accepted => &[State::InProgress, State::Completed, State::Failed, State::Cancelled],
        State::InProgress => &[State::OnHold, State::Completed, State::Failed, State::Cancelled],
        State::OnHold => &[State::InProgress, State::Completed, State::Failed, State::Cancelled],
        State::Rejected
        | State::Completed
        | State::Failed
        | State::Cancelled
        | State::Refused
        | State::Expired
        | State::Withdrawn
        | State::EnteredInError => &[],
    }
}
