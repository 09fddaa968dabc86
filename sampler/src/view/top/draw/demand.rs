//! What a container would use if nothing held it back, in few characters.

use sampler_common::demand::Demand;

use super::super::super::quantity;

/// Bounds this far apart, as a part of the point, are worth telling ...
const WIDE: f64 = 0.2;
/// ... if it is so many cores at least.
const WIDE_CORES: f64 = 0.05;

/// Whether the truth may lie far from the point.
fn is_wide(demand: &Demand) -> bool {
    let apart = demand.upper - demand.lower;
    apart > WIDE_CORES && apart > WIDE * demand.point
}

/// The point in cores, with a mark before it where the bounds are wide: `~0.82`.
pub fn point(demand: &Demand) -> String {
    let about = if is_wide(demand) { "~" } else { "" };
    format!("{about}{}", quantity::cores_number(demand.point))
}

/// The point, and the bounds where they are wide: `0.82 (0.50–2.10)`.
pub fn with_bounds(demand: &Demand) -> String {
    let point = quantity::cores_number(demand.point);
    if !is_wide(demand) {
        return point;
    }
    let [lower, upper] = [demand.lower, demand.upper].map(quantity::cores_number);
    format!("{point} ({lower}–{upper})")
}
