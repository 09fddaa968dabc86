//! What is handed over: a list of figures.

use serde::Serialize;

use crate::rounds::Estimate;

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// What was measured; of several, the median.
    pub value: f64,
    /// Lower end of the 95 % interval of the median, where there is one.
    pub min: Option<f64>,
    /// Its upper end.
    pub max: Option<f64>,
    /// How it was measured.
    pub note: String,
}

/// All figures so far. Each is told on stderr as it comes.
#[derive(Debug, Default)]
pub struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure that has no spread.
    pub fn exact(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        note: impl Into<String>,
    ) {
        self.add(Figure { name: name.into(), unit, value, min: None, max: None, note: note.into() });
    }

    /// Adds a median with its interval; nothing where there were no samples.
    pub fn estimate(
        &mut self,
        name: impl Into<String>,
        unit: &'static str,
        estimate: Option<Estimate>,
        note: impl Into<String>,
    ) {
        if let Some(Estimate { median, low, high }) = estimate {
            let (name, note) = (name.into(), note.into());
            self.add(Figure { name, unit, value: median, min: Some(low), max: Some(high), note });
        }
    }

    fn add(&mut self, figure: Figure) {
        let range = match (figure.min, figure.max) {
            (Some(min), Some(max)) => format!(" ({min:.2} to {max:.2})"),
            _ => String::new(),
        };
        eprintln!("{}: {:.2} {}{range}; {}", figure.name, figure.value, figure.unit, figure.note);
        self.0.push(figure);
    }

    /// The list as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&self.0)
    }
}
