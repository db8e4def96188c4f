//! Who may share what with whom: Cedar policies in layers, and one decision per recipient and data
//! category.
//!
//! A policy set is a folder of texts. `scheme/` is the federation's agreement, `country/<code>/` what a
//! country's law demands, `agency/<domain>/<name>/` what an agency itself allows. The sender's layers
//! decide whether a message may be submitted, the recipient's whether it may be received, and all of
//! them together whether a category is shared and which obligations are waived. A layer that does not
//! exist has no say; one that exists denies what it does not permit. Between two domains each gateway
//! asks the scheme and the layers of its own [`Side`].
//!
//! Deciding is a plain function of a set, two agencies and a question. It never fails: an error denies,
//! and is told as an [`Incident`] for the caller to log and count.

mod asking;
mod cache;
mod cases;
mod decision;
mod fault;
mod folder;
mod layer;
pub mod limits;
mod load;
mod question;
mod schema;
#[cfg(test)]
mod tests;

pub use asking::Side;
pub use decision::{Answer, CategoryOutcome, Decision, Incident};
pub use fault::{Fault, PolicyError, Problem};
pub use folder::{CheckReport, check, read_folder};
pub use layer::LayerName;
pub use question::{Party, Question};
pub use schema::Action;

use std::{collections::BTreeMap, fmt};

use liaison_proto::message::v1::{Rule, data_category::Code as Category};
use liaison_trust::{digest::Digest, names::Domain};

use asking::{Asking, Layers};
use cache::Cache;
use layer::Layer;
use question::{Basis, Head, Named, Pair, View};

/// One file of a policy set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Path inside the policy folder with `/` between its parts, such as `scheme/base.cedar`.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// A checked policy set, ready to decide. What it decided before, it remembers; it is meant to be
/// shared behind an `Arc`.
pub struct PolicySet {
    layers: BTreeMap<LayerName, Layer>,
    named: Named,
    hash: Digest,
    scheme_hash: Digest,
    policies: usize,
    tests: usize,
    messages: Cache<(Side, Pair, Head), Answer>,
    categories: Cache<Section, asking::CategoryAnswer>,
    names: Cache<Section, Answer>,
    views: Cache<View, Answer>,
}

/// One category of a message between two agencies, asked of the layers of a side.
type Section = (Side, Pair, Head, Category, Basis);

impl PolicySet {
    /// Checks a set as a whole: limits, paths, syntax, annotations, strict validation against the schema
    /// and every test beside the policies.
    ///
    /// # Errors
    /// Every fault that was found, each with its file, its line and what to do.
    pub fn load(files: &[PolicyFile]) -> Result<Self, PolicyError> {
        load::load(files)
    }

    /// Decides what of a message one recipient gets, as far as the layers of a side have a say. Pure: the
    /// same set, agencies and question give the same decision.
    ///
    /// `submit` is asked of the sender's layers and `receive` of the recipient's; of a side that is not
    /// asked, the scheme answers alone.
    pub fn decide(&self, side: Side, from: &Party<'_>, to: &Party<'_>, question: &Question) -> Decision {
        let layers = Layers::between(&self.layers, side, from, to);
        let pair = self.named.pair(from, to);
        let head = question.head();
        let mut asking = Asking::new(from, to, head);
        let message = self.messages.get_or((side, pair.clone(), head), || asking.message(&layers));
        Decision::new(message, question, |category, basis| {
            self.categories.get_or((side, pair.clone(), head, category, basis), || {
                asking.category(&layers, category, basis)
            })
        })
    }

    /// Whether the layers of a side let the recipient know that a category of the message was withheld,
    /// whoever withheld it. A category that the question gives no basis for is not named.
    pub fn may_name(
        &self,
        side: Side,
        from: &Party<'_>,
        to: &Party<'_>,
        question: &Question,
        category: Category,
    ) -> Answer {
        let basis = question.bases.get(&category).copied().unwrap_or_default();
        if basis == Basis::Unspecified {
            return Answer { rule: Some(no_basis()), incidents: Vec::new() };
        }
        let head = question.head();
        self.names.get_or((side, self.named.pair(from, to), head, category, basis), || {
            let layers = Layers::between(&self.layers, side, from, to);
            Asking::new(from, to, head).name_withheld(&layers, category, basis)
        })
    }

    /// Whether another domain may know of an agency of this one: asked of the scheme, the agency's country
    /// and the agency itself.
    pub fn discover(&self, peer: &Domain, agency: &Party<'_>) -> Answer {
        self.views.get_or(self.named.view(peer, agency), || {
            asking::discovery(&asking::of_agency(&self.layers, agency), peer, agency)
        })
    }

    /// SHA-256 over the schema and every file, in the order of their paths: what decisions name.
    pub fn hash(&self) -> Digest {
        self.hash
    }

    /// The same over the files of `scheme/` alone: what two domains compare.
    pub fn scheme_hash(&self) -> Digest {
        self.scheme_hash
    }

    /// How many policies the set has.
    pub fn policies(&self) -> usize {
        self.policies
    }

    /// How many tests stand beside them, all passed.
    pub fn tests(&self) -> usize {
        self.tests
    }

    /// The layers that exist, the scheme first.
    pub fn layers(&self) -> impl Iterator<Item = &LayerName> {
        self.layers.keys()
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicySet({}, {} policies)", self.hash, self.policies)
    }
}

/// The rule that withholds a category on which the recipient has no claim: no policy was asked.
pub fn no_basis() -> Rule {
    Rule {
        layer: "consent".to_owned(),
        rule: "none:basis".to_owned(),
        owner: String::new(),
        legal_basis: String::new(),
        explain:
            "Neither a consent nor another basis lets this recipient have this category. Ask the person \
                  for consent that covers the category, the recipient and the purpose, or name another basis."
                .to_owned(),
    }
}

/// The policies that a new domain starts with: the scheme of `deploy/policies`, which names no country
/// and no agency.
pub fn starter() -> Vec<PolicyFile> {
    macro_rules! scheme {
        ($($name:literal),* $(,)?) => {
            vec![$(PolicyFile {
                path: concat!("scheme/", $name).to_owned(),
                text: include_str!(concat!("../../../deploy/policies/scheme/", $name)).to_owned(),
            }),*]
        };
    }
    scheme![
        "messages.cedar",
        "messages.tests.json",
        "sharing.cedar",
        "sharing.tests.json",
        "obligations.cedar",
        "obligations.tests.json",
        "directory.cedar",
        "directory.tests.json",
    ]
}
