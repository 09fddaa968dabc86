//! Use and allocations over time, drawn.

use plotters::prelude::*;

use super::trace::Trace;
use crate::decide::units::MilliCpu;

const WIDTH: u32 = 1200;
const PANEL_HEIGHT: u32 = 220;
/// Points across: what is between two of them is drawn as its maximum, so that no peak is lost.
const POINTS: usize = 1000;
const DAY_SECONDS: f64 = 86_400.0;

/// The figure could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw: {0}")]
pub struct PlotError(String);

/// In what time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Days.
    Days,
    /// Minutes.
    Minutes,
}

/// One series to be drawn: time since its beginning, cores.
pub struct Panel {
    name: String,
    scale: Scale,
    used: Vec<(f64, f64)>,
    ours: Vec<(f64, f64)>,
    baseline: Vec<(f64, f64)>,
}

impl Panel {
    /// A trace with what we and the other method allocated.
    pub fn new(trace: &Trace, [ours, baseline]: [Option<&[MilliCpu]>; 2]) -> Self {
        let start = trace.samples.first().map_or(0, |sample| sample.0.0);
        let day = |index: usize| (trace.samples[index].0.0 - start) as f64 / DAY_SECONDS;
        let used: Vec<_> = trace.samples.iter().enumerate().map(|(index, s)| (day(index), s.1)).collect();
        let line = |allocated: Option<&[MilliCpu]>| {
            let allocated = allocated.unwrap_or_default().iter().enumerate();
            allocated.map(|(index, cpu)| (day(index), cpu.cores())).collect()
        };
        Self::of(trace.name.clone(), Scale::Days, used, line(ours), line(baseline))
    }

    /// Lines of points: time, cores.
    pub fn of(
        name: String,
        scale: Scale,
        used: Vec<(f64, f64)>,
        ours: Vec<(f64, f64)>,
        baseline: Vec<(f64, f64)>,
    ) -> Self {
        let [used, ours, baseline] = [used, ours, baseline].map(|line| thinned(&line));
        Self { name, scale, used, ours, baseline }
    }
}

/// The maximum of each of [`POINTS`] stretches.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS).max(1);
    let highest = |points: &[(f64, f64)]| points.iter().map(|point| point.1).fold(0.0, f64::max);
    points.chunks(stretch).map(|points| (points[0].0, highest(points))).collect()
}

/// All panels, one above the other, as the text of an SVG.
pub fn plot(panels: &[Panel]) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(panels, &mut svg).map_err(|error| PlotError(error.to_string()))?;
    Ok(svg)
}

fn draw(panels: &[Panel], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let height = PANEL_HEIGHT * panels.len().max(1) as u32;
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
        let lines = [(&panel.used, BLACK, 1), (&panel.baseline, RED, 1), (&panel.ours, BLUE, 2)];
        let points = || lines.iter().flat_map(|line| line.0);
        let end = points().map(|point| point.0).fold(0.0, f64::max);
        let cores = points().map(|point| point.1).fold(0.0, f64::max);
        let caption = format!("{}: used (black), ours (blue), baseline (red)", panel.name);
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 14))
            .margin(6)
            .x_label_area_size(22)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..end.max(1e-3), 0.0..cores.max(1e-3) * 1.05)?;
        let time = match panel.scale {
            Scale::Days => "days",
            Scale::Minutes => "minutes",
        };
        chart.configure_mesh().x_desc(time).y_desc("cores").light_line_style(TRANSPARENT).draw()?;
        for (points, color, width) in lines {
            chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(width)))?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::units::Timestamp;

    #[test]
    fn no_peak_is_lost_when_points_are_thinned() {
        let mut points: Vec<_> = (0..10_000).map(|x| (f64::from(x), 1.0)).collect();
        points[4_321].1 = 9.0;
        let thinned = thinned(&points);
        assert_eq!(thinned.len(), POINTS);
        assert_eq!(thinned[432], (4320.0, 9.0));
    }

    #[test]
    fn a_plot_has_a_panel_for_each_series() {
        let trace = |name: &str| Trace {
            name: name.into(),
            samples: vec![(Timestamp(0), 1.0), (Timestamp(60), 2.0)],
        };
        let allocated = [MilliCpu(1_500); 2];
        let panels = ["one", "two"].map(|name| Panel::new(&trace(name), [Some(&allocated), None]));
        let svg = plot(&panels).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("one: used") && svg.contains("two: used"));
        // A panel of a trace without use, and none at all.
        let idle = Trace { name: "idle".into(), samples: vec![(Timestamp(0), 0.0)] };
        assert!(plot(&[Panel::new(&idle, [None, None])]).is_ok() && plot(&[]).is_ok());
    }
}
