//! What a seed has in store: how many nodes, which wire, which evils. Derived from the seed alone.

use crate::rng::Rng;

#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    /// The node of the old release.
    pub old: Option<usize>,
    pub actions: u64,
    /// Each node knows its neighbours only, instead of all others.
    pub is_line: bool,
    pub in_files: bool,
    /// Percent of frames.
    pub loss: u64,
    pub doubled: u64,
    pub reorders: bool,
    pub flips: bool,
    pub partitions: bool,
    pub one_way: bool,
    pub cuts: bool,
    pub kills: bool,
    pub restores: bool,
    pub trims: bool,
    pub clocks: bool,
    pub poison: bool,
    pub absence: bool,
    pub latecomer: bool,
    pub snapshot_from_ops: u64,
    pub batch_ops: usize,
    pub window: usize,
    /// Records a snapshot chunk at most; none: as the store cuts them.
    pub chunk_records: Option<usize>,
    pub full_disks: bool,
    /// Old copies of a file are put back by hand, without a word to the node.
    pub copies: bool,
    /// Bundles are carried from node to node, also to those that are away; some are cut off or damaged on the way.
    pub couriers: bool,
    /// A second process runs on a copy of a disk, under the same name and number, and the network hears now the one,
    /// now the other.
    pub twins: bool,
    /// Nodes carry different parts of the network, and change their minds.
    pub partial: bool,
    /// The node of the old release becomes one of the new.
    pub upgrades: bool,
    /// Bits flip in what disks hold of packed logs.
    pub rots: bool,
    /// The last node is removed from the network: whoever has heard of it says nothing to it and hears nothing of it.
    pub revokes: bool,
    /// The others limit what the last node may do, and change their minds.
    pub limits: bool,
    /// Nodes meet in a bucket too.
    pub buckets: bool,
    /// Nodes from this one on have no links.
    pub linked: usize,
    /// The last node has a link with the one before it alone.
    pub last_meets_one: bool,
    /// Percent of beats.
    pub visits: u64,
    /// Percent of visits that are broken off.
    pub broken_visits: u64,
    /// What lies in the bucket is cut, damaged, lost, doubled, or comes back.
    pub bucket_damage: bool,
    /// What comes and goes in the bucket is listed late.
    pub bucket_lags: bool,
    /// The bucket is one of a store and no folder.
    pub is_store: bool,
    /// Percent of requests to it.
    pub store_faults: u64,
    /// Records name files, which come by the bucket.
    pub files: bool,
    /// Some of them are larger than a parcel.
    pub large_files: bool,
    /// What files may take in the bucket, and what of them goes in one visit.
    pub files_bytes: u64,
    pub visit_bytes: u64,
    /// Only one node says so; else others say it too that have not heard.
    pub revokes_once: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // So that all else of a seed stays what it is.
        let mut own = Rng::new(seed.rotate_left(37));
        let lossy = rng.percent(35);
        let nodes = if rng.percent(70) { 3 } else { 4 };
        let in_files = rng.percent(30);
        Self {
            nodes,
            old: rng.percent(30).then_some(nodes - 1),
            actions: rng.between(30, 110),
            is_line: rng.percent(30),
            in_files,
            loss: if lossy { rng.pick(&[5, 30]) } else { 0 },
            doubled: if lossy { rng.pick(&[0, 20]) } else { 0 },
            reorders: lossy && rng.percent(60),
            flips: rng.percent(15),
            partitions: rng.percent(60),
            one_way: rng.percent(20),
            cuts: rng.percent(40),
            kills: in_files && rng.percent(70),
            restores: in_files && rng.percent(50),
            trims: rng.percent(50),
            clocks: rng.percent(40),
            poison: rng.percent(25),
            absence: rng.percent(30),
            latecomer: rng.percent(40),
            snapshot_from_ops: rng.pick(&[5, 30, 2_000]),
            batch_ops: rng.pick(&[1, 3, 20, 1_000]),
            window: rng.pick(&[1, 2, 4]),
            chunk_records: if rng.percent(60) { Some(rng.pick(&[1, 2, 5])) } else { None },
            full_disks: rng.percent(15),
            copies: in_files && rng.percent(20),
            couriers: rng.percent(35),
            twins: in_files && rng.percent(30),
            partial: rng.percent(35),
            upgrades: in_files && rng.percent(50),
            rots: rng.percent(20),
            buckets: rng.percent(20),
            linked: usize::MAX,
            last_meets_one: false,
            visits: rng.pick(&[4, 12]),
            broken_visits: rng.pick(&[0, 30]),
            bucket_damage: rng.percent(50),
            bucket_lags: rng.percent(30),
            is_store: own.percent(50),
            store_faults: own.pick(&[0, 1, 4]),
            files: own.percent(60),
            large_files: own.percent(25),
            files_bytes: own.pick(&[4 << 30, 4 << 30, 4 << 20]),
            visit_bytes: own.pick(&[256 << 20, 8 << 20]),
            revokes: false,
            limits: false,
            revokes_once: false,
        }
    }

    /// Two nodes in files on a wire without faults, for a run in which one certain evil happens.
    pub fn calm(by_snapshot: bool) -> Self {
        Self {
            nodes: 2,
            old: None,
            actions: 40,
            is_line: false,
            in_files: true,
            loss: 0,
            doubled: 0,
            reorders: false,
            flips: false,
            partitions: false,
            one_way: false,
            cuts: false,
            kills: false,
            restores: false,
            trims: by_snapshot,
            clocks: false,
            poison: false,
            absence: false,
            latecomer: false,
            snapshot_from_ops: if by_snapshot { 5 } else { 2_000 },
            batch_ops: 5,
            window: 2,
            chunk_records: by_snapshot.then_some(3),
            full_disks: false,
            copies: false,
            couriers: false,
            twins: false,
            partial: false,
            upgrades: false,
            rots: false,
            buckets: false,
            linked: usize::MAX,
            last_meets_one: false,
            visits: 0,
            broken_visits: 0,
            bucket_damage: false,
            bucket_lags: false,
            is_store: false,
            store_faults: 0,
            files: false,
            large_files: false,
            files_bytes: 4 << 30,
            visit_bytes: 256 << 20,
            revokes: false,
            limits: false,
            revokes_once: false,
        }
    }

    /// Two nodes of the new release that know each other by way of one of the old, under all evils.
    pub fn older_between(seed: u64) -> Self {
        let plan = Self::of(seed);
        let (old, upgrades) = (Some(1), plan.in_files && seed.is_multiple_of(2));
        Self { nodes: 3, is_line: true, latecomer: false, partial: false, old, upgrades, ..plan }
    }

    /// Four nodes, of which one is stolen, under all evils.
    pub fn revoking(seed: u64) -> Self {
        let plan = Self::of(seed);
        Self {
            nodes: 4,
            latecomer: false,
            partial: false,
            old: None,
            upgrades: false,
            revokes: true,
            ..plan
        }
    }

    /// The last node is limited by the others, under all evils but two: what is carried by hand is told apart elsewhere, and
    /// what a damaged log holds comes to others as a state, which it may not always send.
    pub fn limiting(seed: u64) -> Self {
        let plan = Self::of(seed);
        Self {
            latecomer: false,
            couriers: false,
            partial: false,
            old: None,
            upgrades: false,
            rots: false,
            buckets: false,
            limits: true,
            ..plan
        }
    }

    /// One node more, which is stolen. What a node forgets that is set back, others cannot know.
    pub fn removal(seed: u64) -> Self {
        let plan = Self::of(seed);
        Self {
            nodes: plan.nodes + 1,
            is_line: false,
            restores: false,
            copies: false,
            twins: false,
            partial: false,
            revokes: true,
            ..plan
        }
    }

    /// The same with whole logs, without an older release, and removed by one node alone.
    pub fn quiet_removal(seed: u64) -> Self {
        let plan = Self::removal(seed);
        Self {
            old: None,
            upgrades: false,
            trims: false,
            poison: false,
            rots: false,
            snapshot_from_ops: 2_000,
            revokes_once: true,
            ..plan
        }
    }

    /// As [`Plan::removal`], where all but one carry parts: the removed one may meet nobody but one that passes on a part of
    /// what it writes late.
    pub fn partial_removal(seed: u64) -> Self {
        let last_meets_one = seed.is_multiple_of(2);
        Self { last_meets_one, partial: true, ..Self::removal(seed) }
    }

    /// As [`Plan::quiet_removal`], where all but one carry parts, which stay what they are.
    pub fn quiet_partial_removal(seed: u64) -> Self {
        let last_meets_one = seed.is_multiple_of(2);
        Self { last_meets_one, partial: true, ..Self::quiet_removal(seed) }
    }

    /// Nodes of which few or none have links, and that all meet in a bucket.
    pub fn bucket(seed: u64) -> Self {
        let plan = Self::of(seed);
        let mut rng = Rng::new(seed.rotate_left(29));
        let nodes = 3 + rng.below(2);
        Self {
            nodes,
            old: plan.old.map(|_| nodes - 1),
            actions: rng.between(40, 130),
            is_line: false,
            couriers: rng.percent(20),
            buckets: true,
            linked: rng.pick(&[0, 0, 2, 3]),
            visits: rng.pick(&[8, 20, 40]),
            broken_visits: rng.pick(&[0, 15, 40]),
            bucket_damage: rng.percent(50),
            bucket_lags: rng.percent(40),
            ..plan
        }
    }

    /// The same, with a folder for the bucket, and without files.
    #[must_use]
    pub fn with_folder(self) -> Self {
        Self { is_store: false, files: false, ..self }
    }

    /// As [`Plan::bucket`], where two lives of a node give out the same numbers.
    pub fn forked_bucket(seed: u64) -> Self {
        Self { in_files: true, copies: true, twins: true, ..Self::bucket(seed) }
    }

    /// Three nodes without links, and a bucket.
    pub fn calm_bucket(by_snapshot: bool) -> Self {
        Self {
            nodes: 3,
            actions: 20,
            in_files: false,
            buckets: true,
            linked: 0,
            ..Self::calm(by_snapshot)
        }
    }

    /// As [`Plan::bucket`], where the bucket is one of a store, and records name files.
    pub fn bucket_with_files(seed: u64) -> Self {
        Self { is_store: true, files: true, ..Self::bucket(seed) }
    }

    /// As [`Plan::calm_bucket`], with a store and with files, one of which is larger than a parcel.
    pub fn calm_store() -> Self {
        Self { is_store: true, files: true, large_files: true, ..Self::calm_bucket(false) }
    }

    /// Nodes in a line, each with another part of the network, on a wire with few faults.
    pub fn partial_line(seed: u64) -> Self {
        let plan = Self::of(seed);
        let (trims, cuts) = (plan.trims, plan.cuts);
        let (snapshot_from_ops, chunk_records) = (plan.snapshot_from_ops, plan.chunk_records);
        let calm = Self::calm(false);
        Self {
            nodes: 4,
            actions: 90,
            is_line: true,
            in_files: false,
            partial: true,
            trims,
            cuts,
            snapshot_from_ops,
            chunk_records,
            ..calm
        }
    }
}
