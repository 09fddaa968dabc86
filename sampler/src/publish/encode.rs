//! Writes all [`FAMILIES`], as OpenMetrics text or as Prometheus' protobuf. One after the other, so that of protobuf,
//! which is built as a tree first, there is never more than one family's at a time.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, prometheus_protobuf, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Format;
use super::families::{FAMILIES, Family, Histogram, Of};
use super::ledger::{Labels, Series};
use super::state::Node;

/// Everything at one moment.
#[derive(Debug)]
pub struct Exposition {
    /// Of containers.
    pub series: Vec<Arc<Series>>,
    /// Of the sampler.
    pub node: Node,
}

/// It could not be written: a value that the encoder does not take.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// As text.
    #[error("a metric cannot be written as text")]
    Text(#[from] fmt::Error),
    /// As protobuf.
    #[error("a metric cannot be written as protobuf")]
    Protobuf(#[from] prometheus_protobuf::EncodeError),
}

/// All metrics.
pub fn encode(exposition: &Arc<Exposition>, format: Format) -> Result<Bytes, EncodeError> {
    let registries = FAMILIES.iter().map(|family| {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(One { family, exposition: Arc::clone(exposition) }));
        registry
    });
    match format {
        Format::OpenMetrics => {
            let mut written = String::new();
            for registry in registries {
                text::encode_registry(&mut written, &registry)?;
            }
            text::encode_eof(&mut written)?;
            Ok(written.into())
        }
        Format::Protobuf => {
            let mut written = Vec::new();
            for registry in registries {
                written.append(&mut prometheus_protobuf::encode_to_vec(&registry)?);
            }
            Ok(written.into())
        }
    }
}

/// One family of all series.
struct One {
    family: &'static Family,
    exposition: Arc<Exposition>,
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family.name)
    }
}

impl Collector for One {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Family { name, help, of } = self.family;
        let (kind, suffix) = match of.kind() {
            "counter" => (MetricType::Counter, "_total"),
            "gauge" => (MetricType::Gauge, ""),
            "histogram" => (MetricType::Histogram, ""),
            _ => (MetricType::Info, "_info"),
        };
        // The encoder adds what the type asks for.
        let name = name.strip_suffix(suffix).unwrap_or(name);
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        let node = &self.exposition.node;
        for series in &self.exposition.series {
            let labels = Three(&series.labels);
            match of {
                Of::Counter(value) => match value(series) {
                    Some(value) => counter(metric.encode_family(&labels)?, value)?,
                    None => continue,
                },
                Of::CounterBy(label, values) => {
                    for (by, value) in values(series) {
                        counter(metric.encode_family(&(Three(&series.labels), [(*label, by)]))?, value)?;
                    }
                }
                Of::Gauge(value) => match value(series, node) {
                    Some(value) => metric.encode_family(&labels)?.encode_gauge(&value)?,
                    None => continue,
                },
                Of::GaugeBy(label, values) => {
                    for (by, value) in values(series, node) {
                        let labels = (Three(&series.labels), [(*label, by)]);
                        metric.encode_family(&labels)?.encode_gauge(&value)?;
                    }
                }
                Of::Histogram(value) => match value(series) {
                    Some(value) => histogram(metric.encode_family(&labels)?, &value, series)?,
                    None => continue,
                },
                Of::Info(names, values) => match values(series) {
                    Some(values) => {
                        let more: Vec<_> = names.iter().copied().zip(values).collect();
                        metric.encode_info(&(labels, more))?;
                    }
                    None => continue,
                },
                Of::NodeCounter(_) | Of::NodeCounterBy(..) | Of::NodeGauge(_) | Of::NodeInfo(..) => break,
            }
        }
        match of {
            Of::NodeCounter(value) => match value(node) {
                Some(value) => counter(metric, value),
                None => Ok(()),
            },
            Of::NodeCounterBy(label, values) => values(node)
                .into_iter()
                .try_for_each(|(by, value)| counter(metric.encode_family(&[(*label, by)])?, value)),
            Of::NodeGauge(value) => match value(node) {
                Some(value) => metric.encode_gauge(&value),
                None => Ok(()),
            },
            Of::NodeInfo(names, values) => {
                let labels: Vec<_> = names.iter().copied().zip(values(node)).collect();
                metric.encode_info(&labels)
            }
            _ => Ok(()),
        }
    }
}

fn counter(mut encoder: MetricEncoder<'_>, value: f64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, f64, f64>(&value, None)
}

fn histogram(mut encoder: MetricEncoder<'_>, histogram: &Histogram, series: &Series) -> fmt::Result {
    let Histogram { sum, count, classic, native } = histogram;
    match native {
        Some(native) => encoder.encode_histogram_with_native::<NoLabelSet>(
            *sum,
            *count,
            classic,
            None,
            native.encodable(series.since),
        ),
        None => encoder.encode_histogram::<NoLabelSet>(*sum, *count, classic, None),
    }
}

/// The labels that every series of a container has.
struct Three<'a>(&'a Labels);

impl EncodeLabelSet for Three<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Labels { namespace, pod, container } = self.0;
        [("namespace", namespace.as_str()), ("pod", pod), ("container", container)].encode(encoder)
    }
}
