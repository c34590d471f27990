//! What happened in a run.

/// For the curious, and to see that the evils do occur.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub ops: u64,
    pub frames: u64,
    pub alarms: u64,
    pub pulls: u64,
    pub cut_pulls: u64,
    pub quarantined: u64,
    pub kills: u64,
    pub restores: u64,
    pub trims: u64,
    /// Times that a log was packed.
    pub packs: u64,
    pub flipped: u64,
    pub conflicts: u64,
    pub heal_ms: u64,
    pub records: u64,
    pub full_disks: u64,
    /// Writes that a full disk refused.
    pub refused_full: u64,
    pub copies: u64,
    /// Disks that ran twice.
    pub twins: u64,
    /// Records that two lives of a node wrote to under one name.
    pub collided: u64,
    /// Bundles that arrived whole, and not whole.
    pub bundles: u64,
    pub damaged_bundles: u64,
    /// Streams that nodes dropped.
    pub dropped: u64,
    pub upgrades: u64,
    /// Blocks of logs in which a bit flipped.
    pub rotten: u64,
    /// Links that were cut because one end had heard that the other was removed.
    pub refused: u64,
    /// Times that the others let a node do something else than before.
    pub limits: u64,
    /// Ops that a removed node wrote too late.
    pub late: u64,
    /// Times that a node spoke of what others that spoke of a removed one do not carry.
    pub spoken: u64,
    pub visits: u64,
    /// Times that several nodes visited the bucket at once.
    pub visits_at_once: u64,
    pub broken_visits: u64,
    /// Bundles that came by the bucket, and those that a node put together there.
    pub taken_bundles: u64,
    pub merged_bundles: u64,
    /// States that a node left there for those whose own was another one.
    pub left_states: u64,
    /// Times that something befell what lies in the bucket.
    pub struck_objects: u64,
    /// Requests that a store failed, and did or did not do all the same.
    pub failed_requests: u64,
    /// Files that came whole by the bucket, and parcels that nodes left there.
    pub taken_files: u64,
    pub left_parcels: u64,
    /// Files that went from a node's disk.
    pub lost_files: u64,
}

impl Outcome {
    /// What did not happen, of what is to happen now and then.
    pub fn never(&self) -> Vec<&'static str> {
        let evils = [
            ("quarantined", self.quarantined),
            ("cut_pulls", self.cut_pulls),
            ("kills", self.kills),
            ("restores", self.restores),
            ("trims", self.trims),
            ("packs", self.packs),
            ("flipped", self.flipped),
            ("full_disks", self.full_disks),
            ("refused_full", self.refused_full),
            ("copies", self.copies),
            ("twins", self.twins),
            ("collided", self.collided),
            ("bundles", self.bundles),
            ("damaged_bundles", self.damaged_bundles),
            ("dropped", self.dropped),
            ("upgrades", self.upgrades),
            ("rotten", self.rotten),
            ("refused", self.refused),
            ("limits", self.limits),
            ("late", self.late),
            ("visits", self.visits),
            ("visits_at_once", self.visits_at_once),
            ("broken_visits", self.broken_visits),
            ("taken_bundles", self.taken_bundles),
            ("merged_bundles", self.merged_bundles),
            ("left_states", self.left_states),
            ("struck_objects", self.struck_objects),
            ("failed_requests", self.failed_requests),
            ("taken_files", self.taken_files),
            ("left_parcels", self.left_parcels),
            ("lost_files", self.lost_files),
        ];
        evils.into_iter().filter(|(_, times)| *times == 0).map(|(name, _)| name).collect()
    }

    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.frames += other.frames;
        self.alarms += other.alarms;
        self.pulls += other.pulls;
        self.cut_pulls += other.cut_pulls;
        self.quarantined += other.quarantined;
        self.kills += other.kills;
        self.restores += other.restores;
        self.trims += other.trims;
        self.packs += other.packs;
        self.flipped += other.flipped;
        self.conflicts += other.conflicts;
        self.heal_ms = self.heal_ms.max(other.heal_ms);
        self.records += other.records;
        self.full_disks += other.full_disks;
        self.refused_full += other.refused_full;
        self.copies += other.copies;
        self.twins += other.twins;
        self.collided += other.collided;
        self.bundles += other.bundles;
        self.damaged_bundles += other.damaged_bundles;
        self.dropped += other.dropped;
        self.upgrades += other.upgrades;
        self.rotten += other.rotten;
        self.refused += other.refused;
        self.limits += other.limits;
        self.late += other.late;
        self.spoken += other.spoken;
        self.visits += other.visits;
        self.visits_at_once += other.visits_at_once;
        self.broken_visits += other.broken_visits;
        self.taken_bundles += other.taken_bundles;
        self.merged_bundles += other.merged_bundles;
        self.left_states += other.left_states;
        self.struck_objects += other.struck_objects;
        self.failed_requests += other.failed_requests;
        self.taken_files += other.taken_files;
        self.left_parcels += other.left_parcels;
        self.lost_files += other.lost_files;
    }
}
