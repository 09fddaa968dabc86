//! A histogram over a rolling window: counts by time block and bin, kept only where there are any.
//!
//! ```text
//! window │ block │ block │ … │ block under way │  8 blocks, each an eighth of the window, aligned to the clock
//!             └ bin: count, bin: count, …        4 bytes for each bin in which something was counted
//! ```
//!
//! Nothing decays when it is stored. A percentile is asked for with a half-life, and each block then counts
//! by its age; so a policy's half-life can change at any time, and counting is exact:
//!
//! # Invariants
//!
//! * What two histograms hold together is what one that counted for both would hold, in whichever order they are merged.
//! * A block leaves as a whole, once it began before the window did: nothing older than the window counts, and at
//!   least seven eighths of the window do.
//! * At most [`Blocks::BYTES_AT_MOST`] bytes, each distinct bin of a block taking 4.

use serde::{Deserialize, Serialize};

use crate::decide::units::Timestamp;

/// Bins of equal width on a logarithmic scale: the first one ends at `2^exponent`, each later one
/// 2^(1/`per_octave`) higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Of the first bin's upper edge, as a power of two.
    pub exponent: i32,
    /// Bins in which a value doubles.
    pub per_octave: u32,
}

impl Scale {
    /// The bin of a value: what is below the first is in the first, what is beyond the last in the last.
    pub fn bin(self, value: f64) -> u8 {
        // Saturates; what is no number is in the first. The tolerance keeps an edge in the bin that it ends.
        let above = (value.log2() - f64::from(self.exponent)) * f64::from(self.per_octave);
        (above - 1e-9).ceil() as u8
    }

    /// Upper edge of a bin: a value is at most that, and more than that ÷ [`Scale::ratio`] but in the first.
    pub fn edge(self, bin: u8) -> f64 {
        (f64::from(self.exponent) + f64::from(bin) / f64::from(self.per_octave)).exp2()
    }

    /// By which factor the upper edge of a bin may exceed a value in it.
    pub fn ratio(self) -> f64 {
        (1.0 / f64::from(self.per_octave)).exp2()
    }
}

/// The count of one bin of one block: 4 bits of the block's number, 8 of bin, 20 of count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Cell(u32);

impl Cell {
    const COUNT_BITS: u32 = 20;
    /// Beyond this a bin counts no more: 180 days at the longest sample's weight.
    const MOST: u32 = (1 << Self::COUNT_BITS) - 1;

    fn new(block: u32, bin: u8, count: u32) -> Self {
        let key = (block % Blocks::RING) << 8 | u32::from(bin);
        Self(key << Self::COUNT_BITS | count.min(Self::MOST))
    }

    fn key(self) -> u32 {
        self.0 >> Self::COUNT_BITS
    }

    fn bin(self) -> u8 {
        self.key() as u8
    }

    fn count(self) -> u32 {
        self.0 & Self::MOST
    }

    /// The number of its block, which is at most `newest` and not older than the ring is long.
    fn block(self, newest: u32) -> u32 {
        newest.wrapping_sub(newest.wrapping_sub(self.key() >> 8) % Blocks::RING)
    }
}

/// Counts by block and bin. What a bin means is the caller's ([`Scale`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Length of a block in seconds; never 0.
    block_seconds: u32,
    /// Number, since the epoch, of the newest block.
    newest: u32,
    /// In the order of their keys, each key once.
    cells: Vec<Cell>,
}

impl Blocks {
    /// Blocks of a window.
    pub const BLOCKS: u32 = 8;
    /// Numbers of blocks that are told apart.
    const RING: u32 = 16;
    /// The most that a histogram takes, with something in each bin of each block; a container whose use varies
    /// tenfold within a day has a tenth of it.
    pub const BYTES_AT_MOST: usize = size_of::<Self>() + Self::BLOCKS as usize * 256 * size_of::<Cell>();

    /// An empty one for a window of so many seconds.
    pub fn new(window_seconds: u64) -> Self {
        Self { block_seconds: block_seconds(window_seconds), newest: 0, cells: Vec::new() }
    }

    /// Counts `count` in a bin at a time. What is older than the window is left out.
    pub fn add(&mut self, at: Timestamp, bin: u8, count: u32) {
        let block = self.number(at);
        self.begin(block);
        if count > 0 && self.keeps(block) {
            self.insert(Cell::new(block, bin, count));
        }
    }

    /// Takes another window's length from now on. Blocks are not split: one counts as being as old as its oldest sample may
    /// be.
    pub fn set_window(&mut self, window_seconds: u64) {
        let seconds = block_seconds(window_seconds);
        if seconds == self.block_seconds {
            return;
        }
        let old = std::mem::replace(self, Self::new(window_seconds));
        for cell in &old.cells {
            self.add(old.start(cell.block(old.newest)), cell.bin(), cell.count());
        }
    }

    /// The window's length.
    pub fn window_seconds(&self) -> u64 {
        u64::from(self.block_seconds) * u64::from(Self::BLOCKS)
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        let (longer, mut other) = (self.block_seconds.max(other.block_seconds), other.clone());
        for blocks in [&mut *self, &mut other] {
            blocks.set_window(u64::from(longer) * u64::from(Self::BLOCKS));
        }
        self.begin(other.newest);
        for cell in &other.cells {
            let block = cell.block(other.newest);
            if self.keeps(block) {
                self.insert(Cell::new(block, cell.bin(), cell.count()));
            }
        }
    }

    /// What is counted of the window that ends at `now`, each block by its age; `None` where there is nothing.
    pub fn weighed(&self, now: Timestamp, window_seconds: u64, half_life_seconds: u64) -> Option<Weighed> {
        let from = Timestamp(now.0.saturating_sub(window_seconds));
        let halves = f64::from(self.block_seconds) / half_life_seconds.max(1) as f64;
        let mut weighed = Weighed { weights: [0.0; 256], total: 0.0 };
        for cell in &self.cells {
            let block = cell.block(self.newest);
            if self.start(block) >= from {
                let weight = f64::from(cell.count()) * (-halves * f64::from(self.newest - block)).exp2();
                weighed.weights[usize::from(cell.bin())] += weight;
                weighed.total += weight;
            }
        }
        (weighed.total > 0.0).then_some(weighed)
    }

    /// Bytes that it takes now.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.cells.capacity() * size_of::<Cell>()
    }

    fn number(&self, at: Timestamp) -> u32 {
        u32::try_from(at.0 / u64::from(self.block_seconds)).unwrap_or(u32::MAX)
    }

    fn start(&self, block: u32) -> Timestamp {
        Timestamp(u64::from(block) * u64::from(self.block_seconds))
    }

    fn keeps(&self, block: u32) -> bool {
        block <= self.newest && self.newest - block < Self::BLOCKS
    }

    /// Begins a block, if it is a new one: what is older than the window leaves.
    fn begin(&mut self, block: u32) {
        if block > self.newest {
            let before = std::mem::replace(&mut self.newest, block);
            self.cells.retain(|cell| block - cell.block(before) < Self::BLOCKS);
        }
    }

    fn insert(&mut self, cell: Cell) {
        match self.cells.binary_search_by_key(&cell.key(), |cell| cell.key()) {
            Ok(place) => {
                let sum = (self.cells[place].count() + cell.count()).min(Cell::MOST);
                self.cells[place] = Cell(cell.key() << Cell::COUNT_BITS | sum);
            }
            Err(place) => {
                // One more and no more: half of what doubling would take stays empty.
                self.cells.reserve_exact(1);
                self.cells.insert(place, cell);
            }
        }
    }
}

/// Length of a block of a window, in seconds.
fn block_seconds(window_seconds: u64) -> u32 {
    u32::try_from(window_seconds / u64::from(Blocks::BLOCKS)).unwrap_or(u32::MAX).max(1)
}

/// A window's counts by bin, the older the less they count.
#[derive(Clone, Debug)]
pub struct Weighed {
    weights: [f64; 256],
    total: f64,
}

impl Weighed {
    /// The lowest bin such that at least this share of all is in it or below.
    pub fn bin_at(&self, q: f64) -> u8 {
        // A share that is met but for the last digits is met.
        let wanted = q.clamp(0.0, 1.0) * self.total * (1.0 - 1e-12);
        let mut sum = 0.0;
        let reached = |weight: &f64| {
            sum += weight;
            sum > 0.0 && sum >= wanted
        };
        self.weights.iter().position(reached).map_or(self.highest(), |bin| bin as u8)
    }

    /// The highest bin with anything in it.
    pub fn highest(&self) -> u8 {
        self.weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0) as u8
    }
}

/// What was used within a window, at upper edges of bins: never less than what the samples say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the time no more.
    pub p50: f64,
    /// 90 % of the time no more.
    pub p90: f64,
    /// 95 % of the time no more.
    pub p95: f64,
    /// 99 % of the time no more.
    pub p99: f64,
    /// Never more.
    pub max: f64,
}

impl Percentiles {
    /// On the scale by which the bins were chosen.
    pub fn of(weighed: &Weighed, scale: Scale) -> Self {
        let at = |q: f64| scale.edge(weighed.bin_at(q));
        Self { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max: scale.edge(weighed.highest()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 8 * 3600;
    const SCALE: Scale = Scale { exponent: -10, per_octave: 8 };

    fn counted(samples: &[(u64, f64)]) -> Blocks {
        let mut blocks = Blocks::new(WINDOW);
        for &(at, value) in samples {
            blocks.add(Timestamp(at), SCALE.bin(value), 1);
        }
        blocks
    }

    fn samples() -> impl Strategy<Value = Vec<(u64, f64)>> {
        prop::collection::vec((1_000_000..1_000_000 + 2 * WINDOW, 0.0005..200.0f64), 1..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn merging_is_counting_together_in_any_order(one in samples(), two in samples(), three in samples()) {
            let [a, b, c] = [&one, &two, &three].map(|samples| counted(samples));
            let merged = |blocks: &[&Blocks]| {
                blocks.iter().skip(1).fold(blocks[0].clone(), |mut sum, more| {
                    sum.merge(more);
                    sum
                })
            };
            let together = counted(&[one, two, three].concat());
            prop_assert_eq!(merged(&[&a, &b, &c]), together.clone());
            prop_assert_eq!(merged(&[&c, &a, &b]), together.clone());
            prop_assert_eq!(merged(&[&a, &merged(&[&b, &c])]), together);
        }

        #[test]
        fn property_12_only_data_inside_the_window_counts(samples in samples(), later in 0..2 * WINDOW) {
            let newest = samples.iter().map(|sample| sample.0).max().unwrap();
            let now = newest + later;
            let weighed = counted(&samples).weighed(Timestamp(now), WINDOW, u64::MAX);
            // Everything of the last seven eighths is there, and nothing older than the window.
            let inside = |seconds: u64| {
                let recent = samples.iter().filter(|sample| sample.0 + seconds >= now);
                let mut counts = [0.0; 256];
                recent.for_each(|sample| counts[usize::from(SCALE.bin(sample.1))] += 1.0);
                counts
            };
            let (least, most) = (inside(WINDOW / 8 * 7 - 1), inside(WINDOW));
            let found = weighed.map_or([0.0; 256], |weighed| weighed.weights.map(f64::round));
            for bin in 0..256 {
                prop_assert!(least[bin] <= found[bin] && found[bin] <= most[bin], "{bin}");
            }
        }

        #[test]
        fn property_13_percentiles_are_in_order_and_within_the_stated_error(
            mut values in prop::collection::vec(0.001..80_000.0f64, 1..300)
        ) {
            let samples: Vec<_> = (1_000_000..).zip(values.iter().copied()).collect();
            let weighed = counted(&samples).weighed(Timestamp(1_000_400), WINDOW, 60).unwrap();
            let found = Percentiles::of(&weighed, SCALE);
            let found = [found.p50, found.p90, found.p95, found.p99, found.max];
            prop_assert!(found.is_sorted());
            values.sort_by(f64::total_cmp);
            let len = values.len();
            for (q, found) in [0.5, 0.9, 0.95, 0.99, 1.0].into_iter().zip(found) {
                // Samples this close count alike, unless the clock turns to a new block among them.
                let exact = values[((q * len as f64 - 1e-9).ceil() as usize).clamp(1, len) - 1];
                let same_block = 1_000_000 / (WINDOW / 8) == (1_000_000 + len as u64) / (WINDOW / 8);
                prop_assume!(same_block);
                prop_assert!(found >= exact * (1.0 - 1e-9) && found <= exact * SCALE.ratio() * (1.0 + 1e-9), "P{q}: {found} for {exact}");
            }
        }

        #[test]
        fn another_window_invents_nothing_and_makes_nothing_younger(samples in samples(), window in 60..4 * WINDOW) {
            let mut blocks = counted(&samples);
            blocks.set_window(window);
            let newest = samples.iter().map(|sample| sample.0).max().unwrap();
            let total = |window| blocks.weighed(Timestamp(newest), window, u64::MAX).map_or(0.0, |weighed| weighed.total);
            let inside = samples.iter().filter(|sample| sample.0 + window >= newest).count();
            prop_assert!(total(window) <= inside as f64);
        }
    }

    #[test]
    fn a_block_counts_half_after_a_half_life() {
        // Two samples at 8 cores an hour ago, four at 1 core now: with a half-life of an hour a fifth.
        let hour = 3600;
        let blocks = counted(&[
            (10 * hour, 8.0),
            (10 * hour, 8.0),
            (11 * hour, 1.0),
            (11 * hour, 1.0),
            (11 * hour, 1.0),
            (11 * hour, 1.0),
        ]);
        let at = |q: f64, half_life: u64| {
            SCALE.edge(blocks.weighed(Timestamp(11 * hour), WINDOW, half_life).unwrap().bin_at(q))
        };
        assert_eq!((at(0.79, hour), at(0.81, hour)), (1.0, 8.0));
        assert_eq!((at(0.66, u64::MAX), at(0.67, u64::MAX)), (1.0, 8.0));
    }

    #[test]
    fn bytes_are_bounded() {
        let mut blocks = Blocks::new(WINDOW);
        for at in 0..3 * WINDOW {
            blocks.add(Timestamp(at), (at % 256) as u8, 1_000);
        }
        assert_eq!(blocks.bytes(), Blocks::BYTES_AT_MOST);
        assert_eq!(Blocks::new(WINDOW).bytes(), size_of::<Blocks>());
    }

    #[test]
    fn the_ends_of_the_scale() {
        for (value, bin) in
            [(0.0, 0), (f64::NAN, 0), (-1.0, 0), (0.0009, 0), (1.0, 80), (1.0001, 81), (1e9, 255)]
        {
            assert_eq!(SCALE.bin(value), bin, "{value}");
        }
        assert_eq!(SCALE.edge(80), 1.0);
    }
}
