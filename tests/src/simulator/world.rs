//! The run itself: beats of made-up time in which frames arrive, clocks tick, people write and evil happens; then
//! everything heals, and the oracles look.

use super::act;
use super::bucket::{self, Bucket};
use super::files::{self, Files};
use super::limit::{self, Limit};
use super::model::Model;
use super::nemesis;
use super::node::Node;
use super::oracle;
use super::outcome::Outcome;
use super::parts;
use super::plan::Plan;
use super::removal::{self, Removal};
use super::wire::{Frame, Link, Wire};
use crate::rng::Rng;
use atoll_storage::{Carries, StreamId, Vector};
use atoll_sync::session::{Effect, Event, Now, Options, Phase, Reason, Session};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const BEAT_MS: u64 = 100;
/// Virtual time in which a healed network must become equal.
const HEAL_MS: u64 = 240_000;

pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub rng: Rng,
    pub now_ms: Arc<AtomicU64>,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub wire: Wire,
    pub model: Model,
    pub outcome: Outcome,
    /// What each node last heard that another one carries.
    pub heard_parts: BTreeMap<(usize, usize), Carries>,
    /// How far nodes had the streams that they dropped, which are still on their disks for a while.
    pub dropped: BTreeMap<(usize, StreamId), Vector>,
    /// What the last node may do, where the others limit it.
    pub limit: Option<Limit>,
    /// The node that is removed, once it is.
    pub removal: Option<Removal>,
    pub bucket: Option<Bucket>,
    /// What is known of files, where records name some.
    pub files: Option<Files>,
    dir: Option<TempDir>,
    /// Steps that sessions took; at which of them the node that takes it is killed.
    steps: u64,
    kill_at: Option<u64>,
    trace: bool,
}

impl World {
    pub fn with_plan(seed: u64, plan: Plan) -> Result<Self, String> {
        let dir = plan.in_files.then(scratch).transpose()?;
        let bucket = plan.buckets.then(|| Bucket::new(scratch()?, seed, &plan)).transpose()?;
        let has_files = plan.files && plan.buckets;
        let files = has_files.then(|| Files::new(scratch()?, seed, &plan)).transpose()?;
        let mut world = Self {
            seed,
            rng: Rng::new(seed),
            now_ms: Arc::new(AtomicU64::new(0)),
            nodes: vec![],
            links: vec![],
            wire: Wire::default(),
            model: Model::default(),
            outcome: Outcome::default(),
            heard_parts: BTreeMap::new(),
            dropped: BTreeMap::new(),
            limit: None,
            removal: None,
            bucket,
            files,
            dir,
            steps: 0,
            kill_at: None,
            trace: std::env::var_os("ATOLL_TRACE").is_some(),
            plan,
        };
        for number in 0..world.plan.nodes {
            world.add_node(world.plan.old == Some(number))?;
        }
        if world.plan.limits {
            world.limit = Some(Limit::any(&mut world.rng));
        }
        Ok(world)
    }

    pub fn add_node(&mut self, is_old: bool) -> Result<(), String> {
        let number = self.nodes.len();
        let dir = self.dir.as_ref().map(TempDir::path);
        let chunk_records = self.plan.chunk_records;
        let name = number + usize::from(self.removal.is_some());
        let key = self.plan.buckets.then(|| bucket::key_of(self.seed, name)).transpose()?;
        let now_ms = self.now_ms.clone();
        let shelf = self.files.as_mut().map(|files| files.shelf(name)).transpose()?;
        let mut node = Node::new(name, is_old, now_ms, chunk_records, dir, key, shelf)?;
        node.draw_from(self.seed);
        self.nodes.push(node);
        if self.plan.partial && number > 0 {
            parts::begin(self, number)?;
        }
        let is_last = number + 1 == self.plan.nodes && self.removal.is_none();
        let meets_one = self.plan.is_line || (self.plan.last_meets_one && is_last);
        let first = if meets_one { number.saturating_sub(1) } else { 0 };
        if number < self.plan.linked {
            self.links.extend((first..number).map(|other| Link::new(other, number)));
        }
        Ok(())
    }

    pub fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("[{:>7}] {}", self.now(), text());
        }
    }

    pub fn run(mut self) -> Result<Outcome, String> {
        let mut left = self.plan.actions;
        while left > 0 {
            self.beat()?;
            if self.rng.percent(60) {
                left -= 1;
                let node = self.rng.below(self.nodes.len());
                act::act(&mut self, node)?;
                self.committed(node)?;
            }
            nemesis::strike(&mut self)?;
            files::strike(&mut self)?;
            if self.plan.revokes && self.removal.is_none() && left < self.plan.actions / 2 {
                removal::remove(&mut self)?;
            }
        }
        nemesis::heal(&mut self)?;
        if self.plan.limits {
            let settled = self.settle_until(limit::is_level);
            if let (Err(failure), Some(lack)) = (settled, limit::what_lacks(&mut self)?) {
                return Err(format!("{lack}\n  {failure}"));
            }
            limit::trust(&mut self)?;
        }
        self.settle()?;
        bucket::check(&mut self)?;
        oracle::check(&mut self)?;
        removal::check(&mut self)?;
        self.outcome.frames = self.wire.sent;
        self.outcome.flipped = self.wire.flipped;
        self.outcome.collided = self.model.collided.len() as u64;
        Ok(self.outcome)
    }

    /// Lets people write apart from each other, then brings the nodes together. At the step `kill_at` of their
    /// sessions the node that has just taken it is killed, before anything of it goes out. How many steps it took.
    pub fn run_killed_at(mut self, kill_at: u64) -> Result<u64, String> {
        for _ in 0..self.plan.actions {
            self.now_ms.fetch_add(BEAT_MS, Ordering::Relaxed);
            let node = self.rng.below(self.nodes.len());
            act::act(&mut self, node)?;
        }
        nemesis::heal(&mut self)?;
        self.kill_at = Some(kill_at);
        self.settle()?;
        let steps = self.steps;
        oracle::check(&mut self)?;
        Ok(steps)
    }

    /// Lets people write at nodes that meet by the bucket alone. The visit that takes the step `break_at` of it, counted over
    /// all, is broken off there. How many steps it took.
    pub fn run_broken_at(mut self, break_at: u64) -> Result<u64, String> {
        self.bucket.iter().for_each(|bucket| bucket.break_at(break_at));
        for _ in 0..2 {
            for _ in 0..self.plan.actions / 2 {
                self.now_ms.fetch_add(BEAT_MS, Ordering::Relaxed);
                let node = self.rng.below(self.nodes.len());
                act::act(&mut self, node)?;
                files::strike(&mut self)?;
            }
            (0..2 * self.nodes.len()).try_for_each(|_| bucket::visit_next(&mut self))?;
        }
        let steps = self.bucket.as_ref().map_or(0, Bucket::steps);
        nemesis::heal(&mut self)?;
        self.settle()?;
        bucket::check(&mut self)?;
        oracle::check(&mut self)?;
        Ok(steps)
    }

    /// All are equal; then the last node is removed, and it alone writes on, while evil befalls all.
    pub fn run_removal(mut self) -> Result<Outcome, String> {
        for _ in 0..self.plan.actions / 2 {
            self.now_ms.fetch_add(BEAT_MS, Ordering::Relaxed);
            let node = self.rng.below(self.nodes.len());
            act::act(&mut self, node)?;
        }
        let plan = self.plan.clone();
        (self.plan.latecomer, self.plan.revokes) = (false, false);
        nemesis::heal(&mut self)?;
        self.settle()?;
        self.plan = plan;
        removal::remove(&mut self)?;
        let Some(by) = self.removal.as_ref().map(|removal| removal.by) else {
            return Ok(self.outcome);
        };
        let before = removal::seen(&self, by)?;
        // So that others do not hear too soon.
        let down_until_ms = self.now() + self.rng.between(0, 4_000);
        for link in self.links.iter_mut().filter(|link| link.joins(by)) {
            link.hang_up();
            link.down_until_ms = down_until_ms;
        }
        self.wire.calm = false;
        let last = self.plan.nodes - 1;
        for _ in 0..self.plan.actions {
            self.beat()?;
            if self.rng.percent(60) {
                act::act(&mut self, last)?;
                self.committed(last)?;
            }
            nemesis::strike(&mut self)?;
        }
        nemesis::heal(&mut self)?;
        self.settle()?;
        bucket::check(&mut self)?;
        let after = removal::seen(&self, by)?;
        if before != after {
            let only = |x: &str, y: &str| -> Vec<String> {
                x.lines().filter(|l| !y.lines().any(|m| m == *l)).map(str::to_owned).collect()
            };
            return Err(format!(
                "what was written late shows: {:#?}\n not {:#?}",
                only(&after, &before),
                only(&before, &after)
            ));
        }
        oracle::check(&mut self)?;
        removal::check(&mut self)?;
        Ok(self.outcome)
    }

    fn beat(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms.fetch_add(BEAT_MS, Ordering::Relaxed) + BEAT_MS;
        while let Some(frame) = self.wire.next_due(now_ms) {
            self.deliver(frame)?;
        }
        for link in 0..self.links.len() {
            if self.links[link].ends.is_none() {
                let [a, b] = self.links[link].nodes;
                let is_up = self.links[link].down_until_ms <= now_ms;
                let is_there = !self.nodes[a].is_away && !self.nodes[b].is_away;
                let is_up = is_up && !self.links[link].is_refused && limit::may_meet(self, [a, b]);
                if is_up && is_there && (self.wire.calm || self.rng.percent(40)) {
                    self.connect(link)?;
                }
            } else if now_ms.is_multiple_of(3 * BEAT_MS) {
                for end in 0..2 {
                    self.event(link, end, Event::Tick)?;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, link: usize) -> Result<(), String> {
        let new = |world: &Self, end: usize| {
            Session::new(world.options(link, end), world.session_now(link, end))
        };
        self.links[link].ends = Some([new(self, 0), new(self, 1)]);
        self.say(|| format!("{:?} connect", self.links[link].nodes));
        for end in 0..2 {
            self.event(link, end, Event::Open)?;
        }
        Ok(())
    }

    fn options(&self, link: usize, end: usize) -> Options {
        let nodes = self.links[link].nodes;
        let (me, peer) = (nodes[end], nodes[1 - end]);
        Options {
            name: format!("node {me}"),
            peer: Some(self.nodes[peer].db.origin().node),
            peer_carries: self.heard_parts.get(&(me, peer)).cloned(),
            answer_timeout_ms: 1_500,
            root_every_ms: 2_000,
            quiet_ms: 500,
            snapshot_from_ops: self.plan.snapshot_from_ops,
            window: self.plan.window,
            chunk_window: self.plan.window,
            // In half of the runs most chunks are too long for a message.
            chunk_bytes: if self.plan.window.is_multiple_of(2) { 2_000 } else { 64 << 10 },
            batch_ops: self.plan.batch_ops,
            batch_bytes: 64 << 10,
            quick_ms: 600,
            slow_ms: 1_200,
            lets: limit::lets(self, me, peer),
        }
    }

    fn session_now(&self, link: usize, end: usize) -> Now {
        let node = &self.nodes[self.links[link].nodes[end]];
        Now { elapsed_ms: self.now(), wall_ms: node.wall_ms() }
    }

    fn deliver(&mut self, frame: Frame) -> Result<(), String> {
        if self.links[frame.link].connection == frame.connection {
            self.event(frame.link, frame.to, Event::Frame(frame.bytes))?;
        }
        Ok(())
    }

    /// Lets one end of a link take a step, and carries out what it wants.
    fn event(&mut self, link: usize, end: usize, event: Event) -> Result<(), String> {
        let now = self.session_now(link, end);
        let number = self.links[link].nodes[end];
        let Some(ends) = &mut self.links[link].ends else { return Ok(()) };
        let node = &mut self.nodes[number];
        node.look_at_clock();
        let before = node.log_end();
        let had = self.removal.is_some().then(|| node.vectors()).transpose();
        let had = had.map_err(|error| error.to_string())?;
        let effects = node.with_replica(|replica| ends[end].handle(now, replica, event));
        let has_written = node.log_end() != before;
        if self.plan.partial && ends[end].status().peer.is_some() {
            let peer = self.links[link].nodes[1 - end];
            let heard = self.links[link].ends.as_ref().and_then(|ends| ends[end].peer_carries());
            if let Some(heard) = heard {
                self.heard_parts.insert((number, peer), heard.clone());
            }
        }
        if let Some(had) = had.filter(|_| has_written) {
            removal::acknowledge(self, number, &had)?;
        }
        self.steps += 1;
        if self.kill_at == Some(self.steps) {
            return nemesis::kill(self, number);
        }
        for effect in effects {
            self.carry_out(link, end, effect)?;
        }
        if has_written { self.committed(number) } else { Ok(()) }
    }

    fn carry_out(&mut self, link: usize, end: usize, effect: Effect) -> Result<(), String> {
        let now_ms = self.now();
        match effect {
            Effect::Send(bytes) => {
                let place = (link, &mut self.links[link]);
                self.wire.send(&mut self.rng, &self.plan, place, end, bytes, now_ms);
            }
            Effect::Close(reason) => {
                self.say(|| format!("{:?}.{end} closes: {reason}", self.links[link].nodes));
                let is_full = self.nodes[self.links[link].nodes[end]].is_full();
                let is_expected = match &reason {
                    Reason::Malformed(_) => self.plan.flips,
                    Reason::Store(_) | Reason::Full => is_full,
                    Reason::GrantExpired => self.plan.limits,
                    _ => false,
                };
                if !is_expected {
                    return Err(format!("a session closed: {reason}"));
                }
                self.links[link].hang_up();
            }
            Effect::Alarm { stream, mine, theirs } => {
                self.outcome.alarms += 1;
                let nodes = self.links[link].nodes;
                self.say(|| format!("{nodes:?}.{end} alarm {stream} {mine} {theirs}"));
            }
            Effect::Note(text) => {
                self.outcome.pulls += u64::from(text.starts_with("taking"));
                self.say(|| format!("{:?}.{end} {text}", self.links[link].nodes));
            }
        }
        Ok(())
    }

    /// Tells all sessions of a node that there is something new.
    pub fn committed(&mut self, node: usize) -> Result<(), String> {
        for link in 0..self.links.len() {
            if let Some(end) = self.links[link].nodes.iter().position(|n| *n == node) {
                self.event(link, end, Event::Committed)?;
            }
        }
        Ok(())
    }

    /// Beats on until all nodes are equal and nothing is on its way.
    fn settle(&mut self) -> Result<(), String> {
        self.settle_until(oracle::roots_are_equal)?;
        if self.plan.partial && self.removal.is_some() {
            let until_ms = self.now() + 2 * removal::PATIENCE_MS;
            while self.now() < until_ms {
                self.beat()?;
                removal::take_back_all(self)?;
            }
            self.settle_until(oracle::roots_are_equal)?;
        }
        Ok(())
    }

    fn settle_until(
        &mut self,
        is_level: fn(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let begin_ms = self.now();
        loop {
            self.beat()?;
            if self.now().is_multiple_of(5 * BEAT_MS) {
                bucket::visit_next(self)?;
            }
            if self.now().is_multiple_of(5 * BEAT_MS) && self.are_live() && is_level(self)? {
                self.outcome.heal_ms = self.now() - begin_ms;
                return Ok(());
            }
            if self.now() > begin_ms + HEAL_MS {
                return Err(format!("not equal after healing: {}", oracle::differences(self)?));
            }
        }
    }

    fn are_live(&self) -> bool {
        let is_live = |link: &Link| {
            let ends = link.ends.as_ref();
            ends.is_some_and(|ends| ends.iter().all(|e| e.status().phase == Phase::Live))
        };
        self.links.iter().all(|link| is_live(link) || !limit::may_meet(self, link.nodes))
    }
}

fn scratch() -> Result<TempDir, String> {
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.map_err(|e| e.to_string())
}
