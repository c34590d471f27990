//! Which statements count for a peer: a node's own, and those of peers that it trusts with everything.

use atoll_storage::granted::{self, Statement};
use atoll_storage::tx::Tx;
use atoll_storage::{Clock, Db, NodeId, Rights, peer};
use atoll_sync::grant::{Grant, held, issue, standing};
use atoll_sync::key::{NodeKey, PublicKey};

type Outcome = Result<(), Box<dyn std::error::Error>>;

struct Place {
    db: Db,
    me: NodeKey,
}

fn place() -> Result<Place, Box<dyn std::error::Error>> {
    let me = NodeKey::generate()?;
    let clock = Clock::from_fn(|| 1_700_000_000_000);
    Ok(Place { db: Db::open_in_memory(&[], me.node_id(), clock)?, me })
}

impl Place {
    fn says(
        &mut self,
        holder: PublicKey,
        rights: &Rights,
    ) -> Result<Option<Grant>, atoll_storage::Error> {
        let (key, rights) = (self.me.clone(), rights.clone());
        self.db.transact(|tx: &mut Tx| issue(tx, &key, holder, rights))
    }

    fn keeps(&mut self, statement: &Statement) -> Result<bool, atoll_storage::Error> {
        self.db.transact(|tx: &mut Tx| granted::keep(tx, statement))
    }

    fn lists(&mut self, key: &NodeKey) -> Result<NodeId, atoll_storage::Error> {
        self.db.transact(|tx: &mut Tx| peer::add(tx, &key.public().0, "peer", None))
    }

    /// What a node may do here.
    fn of(&self, node: NodeId) -> Result<Rights, atoll_storage::Error> {
        let standing = standing(&self.db.reader(), self.me.node_id())?;
        Ok(standing.get(&node).cloned().unwrap_or_default())
    }
}

fn reads() -> Rights {
    Rights { write: false, relay: false, ..Rights::everything() }
}

fn statement_of(
    issuer: &NodeKey,
    holder: &NodeKey,
    rights: Rights,
    serial: u64,
) -> Result<Statement, Box<dyn std::error::Error>> {
    let (from, to) = (issuer.public(), holder.public());
    let grant = Grant { issuer: from, holder: to, rights, serial, issued_ms: 1 };
    Ok(grant.statement(grant.sign(issuer)?))
}

#[test]
fn what_a_node_says_of_a_peer_counts_until_it_says_something_else() -> Outcome {
    let (mut a, b) = (place()?, NodeKey::generate()?);
    a.lists(&b)?;
    assert_eq!(a.of(b.node_id())?, Rights::everything());
    assert_eq!(a.says(b.public(), &Rights::everything())?, None, "that goes without saying");
    let first = a.says(b.public(), &reads())?.ok_or("said")?;
    assert_eq!(a.of(b.node_id())?, reads());
    assert_eq!(a.says(b.public(), &reads())?, None, "it is so already");
    let second = a.says(b.public(), &Rights::nothing())?.ok_or("said")?;
    assert!(second.serial > first.serial);
    assert!(a.of(b.node_id())?.is_nothing());
    // What was said earlier comes back by a record or a backup.
    let bytes = first.sign(&a.me)?;
    assert!(!a.keeps(&first.statement(bytes))?);
    assert!(a.of(b.node_id())?.is_nothing());
    Ok(())
}

#[test]
fn others_narrow_what_a_peer_may_and_never_widen_it() -> Outcome {
    let (mut a, b, c) = (place()?, NodeKey::generate()?, NodeKey::generate()?);
    a.lists(&b)?;
    a.keeps(&statement_of(&c, &b, reads(), 1)?)?;
    assert_eq!(a.of(b.node_id())?, Rights::everything(), "c is nobody here");
    a.lists(&c)?;
    assert_eq!(a.of(b.node_id())?, reads());
    a.says(b.public(), &Rights { relay: false, until_ms: Some(5), ..Rights::everything() })?;
    assert_eq!(a.of(b.node_id())?, Rights { until_ms: Some(5), ..reads() });
    a.keeps(&statement_of(&c, &b, Rights::everything(), 2)?)?;
    assert!(!a.of(b.node_id())?.relay, "this node's own word stands");
    // Whoever may not do everything has no say.
    a.keeps(&statement_of(&c, &b, Rights::nothing(), 3)?)?;
    assert!(a.of(b.node_id())?.is_nothing());
    a.says(c.public(), &reads())?;
    assert!(a.of(b.node_id())?.write);
    Ok(())
}

#[test]
fn forged_statements_do_nothing_and_a_damaged_own_one_allows_nothing() -> Outcome {
    let (mut a, b, c) = (place()?, NodeKey::generate()?, NodeKey::generate()?);
    a.lists(&b)?;
    a.lists(&c)?;
    // In the name of c, signed by b; and what c said of somebody else.
    let by_b = statement_of(&b, &a.me.clone(), Rights::nothing(), 9)?;
    a.keeps(&Statement { issuer: c.node_id(), holder: b.node_id(), ..by_b.clone() })?;
    assert_eq!(a.of(b.node_id())?, Rights::everything());
    a.keeps(&Statement { issuer: a.me.node_id(), holder: b.node_id(), ..by_b })?;
    assert!(a.of(b.node_id())?.is_nothing());
    Ok(())
}

#[test]
fn a_node_knows_what_others_let_it_do_and_takes_no_orders_about_itself() -> Outcome {
    let (mut a, b) = (place()?, NodeKey::generate()?);
    a.lists(&b)?;
    a.keeps(&statement_of(&b, &a.me.clone(), reads(), 1)?)?;
    let me = a.me.node_id();
    assert_eq!(held(&a.db.reader(), me)?, [(b.node_id(), reads())].into());
    assert!(standing(&a.db.reader(), me)?.is_empty());
    Ok(())
}
