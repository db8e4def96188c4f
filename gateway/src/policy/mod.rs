//! Who may share what with whom: Cedar policies in layers, and one decision per recipient and data
//! category.
//!
//! A policy set is a folder of texts. `scheme/` is the federation's agreement, `country/<code>/` what a
//! country's law demands, `agency/<domain>/<name>/` what an agency itself allows. The sender's layers
//! decide whether a message may be submitted, the recipient's whether it may be received, and all of
//! them together whether a category is shared and which obligations are waived. A layer that does not
//! exist has no say; one that exists denies what it does not permit.
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

pub use decision::{CategoryOutcome, Decision, Incident};
pub use fault::{Fault, PolicyError, Problem};
pub use folder::{CheckReport, check, read_folder};
pub use layer::LayerName;
pub use question::{Party, Question};
pub use schema::Action;

use std::{collections::BTreeMap, fmt};

use liaison_proto::message::v1::{Rule, data_category::Code as Category};
use liaison_trust::digest::Digest;

use asking::{Asking, Layers};
use cache::Cache;
use layer::Layer;
use question::{Head, Named, Pair};

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
    messages: Cache<(Pair, Head), asking::MessageAnswer>,
    categories: Cache<(Pair, Head, Category, question::Basis), asking::CategoryAnswer>,
}

impl PolicySet {
    /// Checks a set as a whole: limits, paths, syntax, annotations, strict validation against the schema
    /// and every test beside the policies.
    ///
    /// # Errors
    /// Every fault that was found, each with its file, its line and what to do.
    pub fn load(files: &[PolicyFile]) -> Result<Self, PolicyError> {
        load::load(files)
    }

    /// Decides what of a message one recipient gets. Pure: the same set, agencies and question give the
    /// same decision.
    pub fn decide(&self, from: &Party<'_>, to: &Party<'_>, question: &Question) -> Decision {
        let layers = Layers::between(&self.layers, from, to);
        let pair = self.named.pair(from, to);
        let head = question.head();
        let mut asking = Asking::new(from, to, head);
        let message = self.messages.get_or((pair.clone(), head), || asking.message(&layers));
        Decision::new(message, question, |category, basis| {
            self.categories
                .get_or((pair.clone(), head, category, basis), || asking.category(&layers, category, basis))
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
    ]
}
