//! The decision record of one container: what went in, what each step made of it, and why it ended as it did.
//!
//! `loadline why` prints it as it is here.

use std::fmt;

use sampler_common::demand::Demand;
use serde::{Deserialize, Serialize};

use super::duration::{Micros, Seconds};
use super::observation::PodUid;
use super::policy::{Mode, Objectives};
use super::reason::Reason;
use super::scope::PolicyId;
use super::share::PerMille;
use super::sizes::{Difference, Resource, Sizes};
use super::units::{Bytes, MilliCpu, Timestamp};

/// Which container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerRef {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its pod's uid.
    pub uid: PodUid,
    /// Its name.
    pub container: String,
}

impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.namespace, self.pod, self.container)
    }
}

/// A step of the pipeline, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Whether and by which policy it is looked at.
    Select,
    /// Whether there is data to go by.
    Data,
    /// What it should have.
    Target,
    /// Policy, limits, LimitRange, quota.
    Bounds,
    /// What its node can give.
    Node,
    /// What must not happen now.
    Guard,
    /// What is done of it.
    Plan,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Select => "select",
            Self::Data => "data",
            Self::Target => "target",
            Self::Bounds => "bounds",
            Self::Node => "node",
            Self::Guard => "guard",
            Self::Plan => "plan",
        })
    }
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which.
    pub step: Step,
    /// What the container was to get before it.
    pub before: Sizes,
    /// What after it.
    pub after: Sizes,
    /// Why.
    pub reason: Reason,
}

/// What was known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Age of the last reading; `None` without any.
    pub age: Option<Seconds>,
    /// For how long it has been measured, or those that it is sized by.
    pub history: Seconds,
    /// Whose history that is.
    pub whose: Whose,
    /// CPU used, in cores.
    pub cores: Option<f64>,
    /// Working set.
    pub memory: Option<Bytes>,
    /// Highest working set of the last day.
    pub memory_peak: Option<Bytes>,
    /// By how many thousandths forecasts by the time of day are sharper than those that do not know it; `None` where that is not
    /// known, or nothing is forecast.
    pub seasonal_skill: Option<i16>,
    /// What the waits say; `None` where only use is known.
    pub waits: Option<Waits>,
}

/// Whose history a container is sized by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    /// Its own.
    #[default]
    Own,
    /// That of its workload's replicas together.
    Workload,
}

/// What the last window says of waiting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// CPU that it would use if nothing held it back.
    pub demand: Demand,
    /// 99th percentile of the waits that count.
    pub p99: Option<Micros>,
    /// Share of periods in which it was throttled.
    pub throttled: Option<PerMille>,
    /// What is good enough.
    pub objectives: Objectives,
}

/// What was decided about one container, and why.
#[must_use = "an unread record explains nothing"]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Which.
    pub container: ContainerRef,
    /// When.
    pub at: Timestamp,
    /// Its node.
    pub node: Option<String>,
    /// The policy that acts on it, and its mode.
    pub policy: Option<(PolicyId, Mode)>,
    /// Policies that would have, had they been more specific.
    pub overruled: Vec<PolicyId>,
    /// What was known.
    pub inputs: Inputs,
    /// What it had.
    pub current: Sizes,
    /// What it should have, bounds included, before the node and the guards: what status shows.
    pub target: Option<Sizes>,
    /// What each step that did something did, in order.
    pub marks: Vec<Mark>,
    /// What it gets, or would get.
    pub result: Sizes,
    /// Why.
    pub reason: Reason,
    /// What somebody else would have to do about it, where the reason does not say that.
    pub notes: Vec<Reason>,
}

impl fmt::Display for DecisionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            container,
            at: _,
            node,
            policy,
            overruled,
            inputs,
            current,
            target,
            marks,
            result,
            reason,
            notes,
        } = self;
        write!(f, "{container}")?;
        if let Some(node) = node {
            write!(f, " on {node}")?;
        }
        writeln!(f)?;
        if let Some((policy, mode)) = policy {
            write!(f, "  policy    {policy}, {mode:?}")?;
            for policy in overruled {
                write!(f, "; overrules {policy}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  has       {current}")?;
        if inputs.age.is_some() {
            writeln!(f, "  measured  {inputs}")?;
        }
        let mut last = None;
        for Mark { step, before, after, reason } in marks {
            let name = if last == Some(*step) { String::new() } else { step.to_string() };
            last = Some(*step);
            if before == after {
                writeln!(f, "  {name:<9} {reason}")?;
            } else {
                writeln!(f, "  {name:<9} {}: {reason}", Difference(before, after))?;
            }
        }
        if let Some(target) = target.filter(|target| target != result) {
            writeln!(f, "  advice    {target}")?;
        }
        if current == result {
            writeln!(f, "  result    stays as it is")?;
        } else {
            writeln!(f, "  result    {}", Difference(current, result))?;
        }
        write!(f, "  reason    {}: {reason}", reason.name())?;
        for note in notes {
            write!(f, "; and {note}")?;
        }
        for resource in Resource::ALL {
            if let Some((missing, why)) = self.shortfall(resource) {
                match resource {
                    Resource::Cpu => write!(f, "; short by {} CPU: {why}", MilliCpu(missing))?,
                    Resource::Memory => write!(f, "; short by {} memory: {why}", Bytes(missing))?,
                }
            }
        }
        Ok(())
    }
}

impl DecisionRecord {
    /// By how much the request of a resource, in milli-CPU or bytes, is raised less than what was found to be needed, and
    /// what took that away last.
    pub fn shortfall(&self, resource: Resource) -> Option<(u64, &Reason)> {
        let request = |sizes: &Sizes| sizes.pair(resource).0.unwrap_or(0);
        let needed = request(&self.marks.iter().rfind(|mark| mark.step == Step::Target)?.after);
        let result = request(&self.result);
        if result <= request(&self.current) || result >= needed {
            return None;
        }
        let took = |mark: &&Mark| mark.step != Step::Target && request(&mark.after) < request(&mark.before);
        Some((needed - result, &self.marks.iter().rfind(took)?.reason))
    }
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { age, history, whose, cores, memory, memory_peak, seasonal_skill, waits } = self;
        let history_of = match whose {
            Whose::Own => "history",
            Whose::Workload => "its workload's history",
        };
        write!(f, "{} ago, {history} of {history_of}", age.unwrap_or_default())?;
        if let Some(cores) = cores {
            write!(f, "; uses {cores:.3} cores")?;
        }
        if let Some(memory) = memory {
            write!(f, "; {memory} memory")?;
        }
        if let Some(peak) = memory_peak {
            write!(f, ", peak {peak}")?;
        }
        match seasonal_skill {
            None => {}
            Some(..=0) => f.write_str("; the time of day tells nothing")?,
            Some(skill) => {
                write!(
                    f,
                    "; by the time of day forecasts are {} sharper",
                    PerMille(skill.unsigned_abs().into())
                )?;
            }
        }
        match waits {
            None => f.write_str("; usage only"),
            Some(Waits { demand, p99, throttled, objectives }) => {
                match p99 {
                    Some(p99) => write!(f, "; p99 wait {} of {}", Rounded(*p99), objectives.p99_wait)?,
                    None => f.write_str("; no wait")?,
                }
                if let Some(throttled) = throttled {
                    write!(f, "; throttled {throttled} of {}", objectives.throttled_share)?;
                }
                let Demand { point, lower, upper, confidence, .. } = demand;
                write!(
                    f,
                    "; wants {point:.3} cores ({lower:.3} to {upper:.3}), {:.0}% sure",
                    100.0 * confidence
                )
            }
        }
    }
}

/// A wait to a tenth of a millisecond, which is finer than a bucket tells it.
struct Rounded(Micros);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            micros @ ..1000 => write!(f, "{micros}us"),
            micros => write!(f, "{}.{}ms", micros / 1000, micros % 1000 / 100),
        }
    }
}
