//! Content into sections: one a data category, made by the schema. The encoding of a part is what its
//! section seals.

use std::collections::BTreeMap;

use liaison_proto::{
    category,
    message::v1::{
        AlertContent, ReferralContent, alert_kind::Code as AlertKind, data_category::Code as Category,
    },
    strict::StrictError,
};
use zeroize::Zeroizing;

/// The plaintext of each section, by its category.
pub type Sections = BTreeMap<Category, Zeroizing<Vec<u8>>>;

/// Why content has no sections to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Nothing was written.
    #[error("the content holds no category")]
    Empty,
    /// An alert of this kind has no place for the category.
    #[error("an alert of kind {} has no place for the category {}", kind.as_str_name(), category.as_str_name())]
    NotOfKind {
        /// The alert's kind.
        kind: AlertKind,
        /// The category that it may not hold.
        category: Category,
    },
    /// The content does not follow its schema.
    #[error(transparent)]
    Schema(#[from] StrictError),
}

/// The sections of a referral.
pub fn referral(content: &ReferralContent) -> Result<Sections, SplitError> {
    sections(category::split(content)?)
}

/// The sections of an alert; its kind says which categories it may hold.
pub fn alert(kind: AlertKind, content: &AlertContent) -> Result<Sections, SplitError> {
    let parts = category::split(content)?;
    let place = category::of_alert(kind);
    match parts.keys().find(|category| !place.contains(category)) {
        Some(category) => Err(SplitError::NotOfKind { kind, category: *category }),
        None => sections(parts),
    }
}

fn sections(parts: BTreeMap<Category, Vec<u8>>) -> Result<Sections, SplitError> {
    if parts.is_empty() {
        return Err(SplitError::Empty);
    }
    Ok(parts.into_iter().map(|(category, part)| (category, Zeroizing::new(part))).collect())
}

#[cfg(test)]
mod tests {
    use liaison_proto::message::v1::{AlertInfo, ExploitationPattern, Health, Narrative, Perpetrator};
    use prost::Message;

    use super::*;

    #[test]
    fn each_section_holds_its_category_alone() {
        let content = ReferralContent {
            health: Some(Health { physical: "broken arm".into(), ..Health::default() }),
            narrative: Some(Narrative { text: "long story".into() }),
            perpetrators: vec![Perpetrator { details: "one".into(), ..Perpetrator::default() }; 2],
            ..ReferralContent::default()
        };
        let sections = referral(&content).unwrap();
        assert_eq!(
            sections.keys().copied().collect::<Vec<_>>(),
            [Category::Health, Category::Perpetrator, Category::Narrative]
        );
        let health = ReferralContent::decode(sections[&Category::Health].as_slice()).unwrap();
        assert_eq!(health, ReferralContent { health: content.health.clone(), ..ReferralContent::default() });
        let mut whole = ReferralContent::default();
        for part in sections.values() {
            whole.merge(part.as_slice()).unwrap();
        }
        assert_eq!(whole, content);
    }

    #[test]
    fn nothing_is_no_referral() {
        assert_eq!(referral(&ReferralContent::default()), Err(SplitError::Empty));
        assert_eq!(
            alert(AlertKind::HealthRisk, &AlertContent::default()).map(|_| ()),
            Err(SplitError::Empty)
        );
    }

    #[test]
    fn an_alert_holds_what_its_kind_has_place_for() {
        let pattern = AlertContent {
            info: Some(AlertInfo::default()),
            pattern: Some(ExploitationPattern::default()),
            ..AlertContent::default()
        };
        assert_eq!(alert(AlertKind::ExploitationPattern, &pattern).unwrap().len(), 2);
        assert_eq!(
            alert(AlertKind::HealthRisk, &pattern),
            Err(SplitError::NotOfKind { kind: AlertKind::HealthRisk, category: Category::Exploitation })
        );
        let story = AlertContent {
            narrative: Some(Narrative { text: "about a person".into() }),
            ..AlertContent::default()
        };
        assert_eq!(
            alert(AlertKind::ExploitationPattern, &story),
            Err(SplitError::NotOfKind {
                kind: AlertKind::ExploitationPattern,
                category: Category::Narrative
            })
        );
        assert!(alert(AlertKind::MissingMinor, &story).is_ok());
    }
}
