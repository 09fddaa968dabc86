//! What one container is to get, in the making: each step takes from it or adds to it, and leaves its mark.

use super::bounds::{self, Bounded};
use super::guards::{self, Facts};
use super::node::Claim;
use super::observation::{Observation, Pod, PodUid};
use super::pipeline::priority;
use super::reason::Reason;
use super::record::{DecisionRecord, Mark, Step};
use super::size::{self, Found, Reasons};
use super::sizes::{Direction, Resource, Sizes};
use super::units::Timestamp;
use super::weight::weight;

/// A container's place in an observation.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) uid: &'a PodUid,
    pub(super) pod: &'a Pod,
    pub(super) name: &'a str,
}

/// What is to be given to one container, in the making.
pub(super) struct Draft<'a> {
    pub(super) place: Place<'a>,
    pub(super) node_name: &'a str,
    pub(super) facts: Facts<'a>,
    /// It is changed, not only shown.
    pub(super) applies: bool,
    pub(super) dry_run: bool,
    /// What it is to get.
    pub(super) sizes: Sizes,
    /// What the guards would leave of it, before the node is divided.
    pub(super) guarded: Sizes,
    pub(super) found: Found,
    pub(super) known_since: Option<Timestamp>,
    pub(super) record: DecisionRecord,
    /// Why its pod is treated otherwise than resized, once that is known.
    pub(super) outcome: Option<Outcome>,
}

/// How a pod is treated otherwise than resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It gets back what its node had agreed to.
    Reverted,
    /// It is made anew.
    Recreated,
}

/// What is kept of a draft.
pub(super) struct Remembered {
    pub(super) uid: PodUid,
    pub(super) container: String,
    pub(super) found: Found,
    pub(super) known_since: Option<Timestamp>,
    pub(super) planned: Option<Sizes>,
    pub(super) boosted_from: Option<Box<Sizes>>,
}

impl Draft<'_> {
    /// What it has.
    pub(super) fn current(&self) -> Sizes {
        self.facts.current()
    }

    /// Whether it is to change.
    pub(super) fn changes(&self) -> bool {
        self.sizes != self.current()
    }

    /// Whether what is decided is done, too.
    pub(super) fn is_done(&self) -> bool {
        self.applies && !self.dry_run
    }

    /// Takes another size, and notes which step did it and why.
    pub(super) fn mark(&mut self, step: Step, after: Sizes, reason: Reason) {
        self.record.marks.push(Mark { step, before: self.sizes, after, reason });
        self.sizes = after;
    }

    /// It keeps what it has, if it was to change.
    pub(super) fn hold(&mut self, step: Step, reason: Reason) {
        if self.changes() {
            self.mark(step, self.current(), reason);
        }
    }

    pub(super) fn bound(&mut self, unknown: &[Resource], unmeasured: Option<Sizes>) {
        let Facts { pod, policy, limit_ranges, .. } = self.facts;
        let current = self.current();
        // Of what nothing is known stays as it is, also where it is out of bounds.
        let keep = |sizes: Sizes| {
            let sizes = unmeasured.map_or(sizes, |least| sizes.not_below(&least));
            unknown.iter().fold(sizes, |sizes, resource| sizes.with(*resource, &current))
        };
        let take = |draft: &mut Self, Bounded { sizes, reason }: Bounded| {
            let sizes = keep(sizes);
            if sizes != draft.sizes {
                draft.mark(Step::Bounds, sizes, reason);
            }
        };
        for bounded in bounds::allowed(pod, policy, current, self.sizes) {
            take(self, bounded);
        }
        // Where it is not measured, what it should have is not known.
        self.record.target = unmeasured.is_none().then_some(self.sizes);
        for range in limit_ranges {
            if let Some(bounded) = bounds::limit_range(pod, policy, range, current, self.sizes) {
                take(self, bounded);
            }
        }
        for bounded in bounds::within_limits(policy, self.sizes) {
            take(self, bounded);
        }
    }

    pub(super) fn guard(&mut self) {
        if let Some(back) = guards::revert(&self.facts) {
            self.mark(Step::Guard, back, Reason::Reverted);
            self.outcome = Some(Outcome::Reverted);
            return;
        }
        for guard in guards::ALL {
            let guards::Ruling { sizes, objection } = guard(&self.facts, self.sizes);
            if let Some(reason) = objection {
                self.mark(Step::Guard, sizes, reason);
            }
        }
    }

    pub(super) fn claim(&self, observation: &Observation) -> Claim<'_> {
        let Facts { pod, policy, state, urgent, .. } = self.facts;
        let (current, priority) = (self.current(), priority(observation, pod));
        Claim {
            who: (&self.place.uid.0, self.place.name),
            weight: weight(state.started_with.cpu(), policy.weight, priority),
            urgent: urgent.memory,
            priority,
            cpu: (current.cpu(), self.guarded.cpu()),
            memory: (current.memory(), self.guarded.memory()),
        }
    }

    /// What the node gives, where that is less than what the guards would leave; and why it is not more.
    pub(super) fn share(&mut self, resource: Resource, share: u64, short: &Reason) {
        if Some(share) < self.guarded.pair(resource).0 {
            self.mark(Step::Node, self.given(resource, share), short.clone());
        }
    }

    /// Whether so much of a resource would be too small a change.
    pub(super) fn is_too_small(&self, resource: Resource, share: u64) -> bool {
        let (current, given) = (self.current(), self.given(resource, share));
        !given.same(resource, &current)
            && guards::hysteresis(&self.facts, given).sizes.same(resource, &current)
    }

    /// What it gets when its node gives it so much of a resource.
    fn given(&self, resource: Resource, share: u64) -> Sizes {
        let ((has, _), (_, limit)) = (self.current().pair(resource), self.sizes.pair(resource));
        // What was not set and gets nothing stays so.
        let request = (share > 0 || has.is_some()).then_some(share);
        let given = self.sizes.with_pair(resource, (request, limit));
        let given = bounds::equal_limits(self.facts.pod, given);
        if given.direction(&self.current()) == Direction::Same { self.current() } else { given }
    }

    pub(super) fn to_remember(&self) -> Remembered {
        let planned = (self.is_done() && self.changes()).then_some(self.sizes);
        Remembered {
            uid: self.place.uid.clone(),
            container: self.place.name.to_owned(),
            found: self.found.clone(),
            known_since: self.known_since,
            planned,
            boosted_from: size::boosted_from(&self.facts, &self.found, planned),
        }
    }

    /// Why it does not change: what took the last of the change away. That a change was too small says least, and
    /// comes after what the target has to say.
    fn why_not(&self) -> Reason {
        let later = self.record.marks.iter().rev().filter(|mark| mark.step != Step::Target);
        let took = |mark: &&Mark| mark.before != mark.after && mark.reason != Reason::Hysteresis;
        if let Some(mark) = later.clone().find(took) {
            return mark.reason.clone();
        }
        match self.found.reasons.of_rest() {
            Reason::OnTarget if later.count() > 0 => Reason::Hysteresis,
            reason => reason,
        }
    }

    /// Which way a resource goes from one size to the other.
    fn way(resource: Resource, from: &Sizes, to: &Sizes) -> Direction {
        from.with(resource, to).direction(from)
    }

    /// Why it changes: what moved it last the way that it went. What rises is told first.
    fn because(&self) -> Reason {
        let current = self.current();
        let went = |resource| Self::way(resource, &current, &self.sizes);
        let resource = match (went(Resource::Cpu), went(Resource::Memory)) {
            (Direction::Same, _) | (Direction::Down, Direction::Up) => Resource::Memory,
            _ => Resource::Cpu,
        };
        let that_way = |mark: &&Mark| match (Self::way(resource, &mark.before, &mark.after), went(resource)) {
            (Direction::Same, _) => false,
            (Direction::Both, _) | (_, Direction::Both) => true,
            (moved, went) => moved == went,
        };
        match self.record.marks.iter().rfind(that_way).map(|mark| &mark.reason) {
            None | Some(Reason::TargetKept) => self.found.reasons.of(resource),
            Some(reason) => reason.clone(),
        }
    }

    /// What is done, and why.
    fn done(&self) -> Reason {
        if self.outcome == Some(Outcome::Reverted) {
            return Reason::Reverted;
        }
        let because = Box::new(self.because());
        let done = match self.sizes.direction(&self.current()) {
            Direction::Down => Reason::Lowered(because),
            Direction::Up => Reason::Raised(because),
            Direction::Both | Direction::Same => Reason::Rebalanced(because),
        };
        match self.outcome {
            Some(Outcome::Recreated) => Reason::Recreated(Box::new(done)),
            _ => done,
        }
    }

    pub(super) fn finish(self) -> DecisionRecord {
        let result = self.sizes;
        let reason = if self.current() == result {
            self.why_not()
        } else if self.dry_run {
            Reason::DryRun(Box::new(self.done()))
        } else if !self.applies {
            Reason::Recommended(Box::new(self.done()))
        } else {
            self.done()
        };
        let Reasons { cpu, memory } = self.found.reasons;
        let of_cpu = cpu.is_for_others().then_some(Reason::CpuTarget(cpu));
        let of_memory = memory.filter(|memory| memory.is_for_others()).map(Reason::MemoryTarget);
        let notes = of_cpu.into_iter().chain(of_memory).filter(|note| !reason.is_because_of(note)).collect();
        DecisionRecord { result, reason, notes, ..self.record }
    }
}
