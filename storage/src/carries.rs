//! What of the network a node carries: rules over tenants and scopes. A pure value. It says nothing of who may have
//! what; that is a grant's work.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{Id, NodeId, StreamId};
use bincode::{Decode, Encode};
use std::fmt;

/// More rules are refused, from people and from peers.
pub const MAX_RULES: usize = 64;
pub(crate) const MAX_SCOPE_BYTES: usize = 64;

/// One rule. In text: `tenant/scope`, with `*` for any, and `-` in front of what is left out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Debug)]
pub struct Rule {
    pub leaves: bool,
    /// None: any.
    pub tenant: Option<Id>,
    /// A scope, all that begins alike if it ends with `/`, or any if it is empty.
    pub scope: String,
}

/// The rules, in order: the last one that fits a stream decides, and what none fits is not carried.
#[derive(Clone, PartialEq, Eq, Hash, Encode, Decode, Debug)]
pub struct Carries(Vec<Rule>);

impl Default for Carries {
    fn default() -> Self {
        Self::everything()
    }
}

impl Rule {
    fn fits(&self, stream: &StreamId) -> bool {
        self.tenant.is_none_or(|tenant| tenant == stream.tenant)
            && holds(&self.scope, &stream.scope)
    }

    /// Whether whatever the other one fits, this one fits too.
    fn includes(&self, other: &Self) -> bool {
        let tenant = self.tenant.is_none() || self.tenant == other.tenant;
        tenant
            && (self.scope.is_empty()
                || (!other.scope.is_empty() && holds(&self.scope, &other.scope)))
    }

    /// Whether there may be a stream that both fit.
    fn meets(&self, other: &Self) -> bool {
        let is_same = self.tenant == other.tenant;
        let tenant = is_same || self.tenant.is_none() || other.tenant.is_none();
        tenant && (holds(&self.scope, &other.scope) || holds(&other.scope, &self.scope))
    }

    /// # Errors
    /// `Malformed`, with what it should look like. `tenant_of` finds a tenant by the name that is not an id.
    pub fn parse(text: &str, tenant_of: impl Fn(&str) -> Option<Id>) -> Result<Self> {
        let wrong = |why: &str| {
            Error::Malformed(format!(
                "{text:?} is no rule ({why}): write tenant/scope, with * for any, and - in front of what is left out"
            ))
        };
        let text = text.trim();
        let (leaves, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (tenant, scope) = rest.split_once('/').unwrap_or((rest, "*"));
        let tenant = match tenant {
            "" => return Err(wrong("it names no tenant")),
            "*" => None,
            name => Some(
                Id::parse(name)
                    .or_else(|| tenant_of(name))
                    .ok_or_else(|| wrong("there is no such tenant"))?,
            ),
        };
        let scope = if scope == "*" { "" } else { scope };
        let rule = Self { leaves, tenant, scope: scope.to_owned() };
        if rule.is_sound() && !rest.ends_with("//") {
            Ok(rule)
        } else {
            Err(wrong("its scope is none"))
        }
    }

    fn is_sound(&self) -> bool {
        is_scope(&self.scope)
    }
}

/// Whether a scope, or a pattern of some, could be written like this; an empty one stands for any.
pub(crate) fn is_scope(scope: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
    scope.len() <= MAX_SCOPE_BYTES && scope.chars().all(fits) && !scope.starts_with('/')
}

/// Whether a pattern of scopes holds a scope, or all that another pattern does.
pub(crate) fn holds(pattern: &str, scope: &str) -> bool {
    pattern.is_empty() || pattern == scope || (pattern.ends_with('/') && scope.starts_with(pattern))
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.leaves {
            f.write_str("-")?;
        }
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}")?,
            None => f.write_str("*")?,
        }
        f.write_str("/")?;
        f.write_str(if self.scope.is_empty() { "*" } else { &self.scope })
    }
}

impl Carries {
    pub fn everything() -> Self {
        Self(vec![Rule { leaves: false, tenant: None, scope: String::new() }])
    }

    pub fn nothing() -> Self {
        Self(vec![])
    }

    /// # Errors
    /// `Malformed` if there are too many.
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Result<Self> {
        let mut carries = Self::nothing();
        for rule in rules {
            carries.push(rule)?;
        }
        Ok(carries)
    }

    /// # Errors
    /// As [`Rule::parse`], and if there are too many.
    pub fn parse<'t>(
        rules: impl IntoIterator<Item = &'t str>,
        tenant_of: impl Fn(&str) -> Option<Id>,
    ) -> Result<Self> {
        let rules: Result<Vec<Rule>> =
            rules.into_iter().map(|text| Rule::parse(text, &tenant_of)).collect();
        Self::of(rules?)
    }

    /// One more rule, which stands over those before it. Those that it leaves nothing of go.
    pub fn push(&mut self, rule: Rule) -> Result<()> {
        self.0.retain(|old| !rule.includes(old));
        let last = self.0.iter().rev().find(|old| old.meets(&rule));
        let is_so = match last {
            Some(last) => last.leaves == rule.leaves && last.includes(&rule),
            None => rule.leaves,
        };
        if !is_so {
            self.0.push(rule);
        }
        self.check()
    }

    /// # Errors
    /// `Malformed` for what only somebody else's bytes can be.
    pub fn check(&self) -> Result<()> {
        if self.0.len() > MAX_RULES {
            return Err(Error::Malformed(format!(
                "a node carries by at most {MAX_RULES} rules: put some together with *"
            )));
        }
        if self.0.iter().all(Rule::is_sound) {
            return Ok(());
        }
        Err(Error::Malformed("a rule of what a node carries is none".into()))
    }

    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    pub fn is_everything(&self) -> bool {
        matches!(&self.0[..], [Rule { leaves: false, tenant: None, scope }] if scope.is_empty())
    }

    /// Whether a stream is carried. Who may do what in the whole network always is; the users of a tenant are wherever
    /// anything of it is.
    pub fn carries(&self, stream: &StreamId) -> bool {
        match stream.scope.as_str() {
            "network" => true,
            "identity" => stream.tenant == Id::NIL || self.has_any_of(stream.tenant),
            _ => {
                self.0.iter().rev().find(|rule| rule.fits(stream)).is_some_and(|rule| !rule.leaves)
            }
        }
    }

    fn has_any_of(&self, tenant: Id) -> bool {
        let is_of = |rule: &Rule| rule.tenant.is_none_or(|t| t == tenant);
        let narrowed = |rule: &Rule| Rule { tenant: Some(tenant), ..rule.clone() };
        (0..self.0.len()).any(|at| {
            let rule = &self.0[at];
            let is_left = |later: &Rule| later.leaves && later.includes(&narrowed(rule));
            !rule.leaves && is_of(rule) && !self.0[at + 1..].iter().any(is_left)
        })
    }

    /// A part of the roots that nodes compare: two nodes that compare the same streams, and know so. Nothing for who
    /// carries everything.
    pub fn leaf(&self, node: NodeId) -> Digest {
        if self.is_everything() {
            return Digest::default();
        }
        Digest::of(&[&b"carries"[..], &node.0, &crate::codec::encode(self)].concat())
    }
}

impl fmt::Display for Carries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.0.iter().map(Rule::to_string).collect();
        f.write_str(&if rules.is_empty() { "nothing".to_owned() } else { rules.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = Id([1; 16]);
    const B: Id = Id([2; 16]);

    fn carries(rules: &[&str]) -> Result<Carries> {
        let tenant_of = |name: &str| [("a", A), ("b", B)].iter().find(|t| t.0 == name).map(|t| t.1);
        Carries::parse(rules.iter().copied(), tenant_of)
    }

    #[test]
    fn the_last_rule_that_fits_decides() -> Result<()> {
        let some = carries(&["*", "-a", "a/content", "-*/learning/", "b/learning/maths"])?;
        let has = |tenant, scope: &str| some.carries(&StreamId::new(tenant, scope));
        assert!(has(A, "content") && !has(A, "community") && has(B, "community"));
        assert!(!has(B, "learning/art") && has(B, "learning/maths") && !has(A, "learning/maths"));
        assert!(!some.is_everything() && carries(&["a", "-a", "*"])?.is_everything());
        Ok(())
    }

    #[test]
    fn users_are_where_anything_of_their_tenant_is() -> Result<()> {
        let some = carries(&["a/content", "b", "-b"])?;
        let identity = |tenant| some.carries(&StreamId::new(tenant, "identity"));
        assert!(identity(A) && !identity(B) && identity(Id::NIL));
        assert!(Carries::nothing().carries(&StreamId::new(Id::NIL, "network")));
        assert!(!carries(&["a", "-a/content", "-a"])?.carries(&StreamId::new(A, "identity")));
        Ok(())
    }

    #[test]
    fn a_rule_reads_back_and_what_is_none_is_refused() -> Result<()> {
        for text in ["*/*", &format!("-{A}/learning/"), &format!("{B}/content")] {
            assert_eq!(Rule::parse(text, |_| None)?.to_string(), text);
        }
        for text in ["", "/x", "c/x", "a//", "*/con tent", &format!("*/{}", "x".repeat(65))] {
            assert!(carries(&[text]).is_err(), "{text}");
        }
        let many: Vec<String> = (0..=MAX_RULES).map(|n| format!("*/s{n}")).collect();
        assert!(carries(&many.iter().map(String::as_str).collect::<Vec<_>>()).is_err());
        Ok(())
    }

    #[test]
    fn what_a_later_rule_covers_goes() -> Result<()> {
        assert_eq!(carries(&["*", "-a/content", "a"])?.to_string(), "*/*");
        assert_eq!(carries(&["a/content", "-a"])?, Carries::nothing());
        assert!(carries(&["*", "-*/community", "*/community"])?.is_everything());
        Ok(())
    }
}
