//! The rules of one listener or initiator, and their decision.

use std::fmt;

use crate::message::failure::{Cause, Failure};
use crate::message::path::Readings;
use crate::policy::traffic::rule::{Action, Priority, Rule};
use crate::policy::traffic::subject::Subject;

/// Rules in the order in which they are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules<F>(Vec<Rule<F>>);

/// Two rules of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two rules have the priority {0}; expected each priority once")]
pub struct DuplicatePriority(pub Priority);

impl<F> Default for Rules<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F> Rules<F> {
    /// Rules in any order; the highest priority is looked at first.
    ///
    /// # Errors
    /// [`DuplicatePriority`]
    pub fn new(mut rules: Vec<Rule<F>>) -> Result<Self, DuplicatePriority> {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        match rules.windows(2).find(|pair| pair[0].priority == pair[1].priority) {
            Some(pair) => Err(DuplicatePriority(pair[0].priority)),
            None => Ok(Self(rules)),
        }
    }

    /// Whether there are none but the last.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they are looked at.
    pub fn iter(&self) -> std::slice::Iter<'_, Rule<F>> {
        self.0.iter()
    }

    /// The first rule that is about the subject, or the last rule.
    ///
    /// # Errors
    /// It cannot be said which one that is, because what a rule asks for is ambiguous or cannot be read: the request is at
    /// fault, and must go nowhere.
    pub fn decide(&self, subject: &Subject<'_>) -> Result<Decision<'_, F>, Failure> {
        let place = match subject.path {
            Some(path) => Readings::of(path)
                .agree_strictly(|reading| self.first(subject, Some(reading)))
                .unwrap_or_else(|_| Err(ambiguous())),
            None => self.first(subject, None),
        }?;
        Ok(Decision { place: place.unwrap_or(self.0.len()), rule: place.map(|place| &self.0[place]) })
    }

    fn first(&self, subject: &Subject<'_>, path: Option<&str>) -> Result<Option<usize>, Failure> {
        for (place, rule) in self.0.iter().enumerate() {
            if rule.matches.holds(subject, path)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

fn ambiguous() -> Failure {
    let details = "the path can be read in two ways that different rules decide on: %2f, \\, %5c, or what follows a ;";
    Failure::new(Cause::BadRequest, details)
}

/// Which rule decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a, F> {
    /// At which place it stands; the last rule stands behind all others.
    pub place: usize,
    /// The rule; `None`: the last one, by which everything goes where it would go without rules.
    pub rule: Option<&'a Rule<F>>,
}

impl<'a, F> Decision<'a, F> {
    /// What becomes of the subject.
    pub fn action(&self) -> &'a Action<F> {
        self.rule.map_or(&Action::Allow, |rule| &rule.action)
    }

    /// The rule, as people are told of it; `None`: the last one.
    pub fn explained(&self) -> Option<ExplainedRule> {
        self.rule.map(|rule| ExplainedRule {
            priority: rule.priority,
            name: rule.name.clone(),
            action: rule.action.label(),
        })
    }
}

/// A rule, as it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedRule {
    /// Its priority.
    pub priority: Priority,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it does: `allow`, `deny`, `reroute` or `forward`.
    pub action: &'static str,
}

/// `900 (no-admin): deny`
impl fmt::Display for ExplainedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.priority)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        write!(f, ": {}", self.action)
    }
}

/// `rule 900 (no-admin)`, or `the last rule`
impl<F> fmt::Display for Decision<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Some(rule) => rule.fmt(f),
            None => f.write_str("the last rule"),
        }
    }
}
