//! `lab energy`: joules of encoding and decoding, counted by the processor or modelled.

use std::path::PathBuf;

use serde_json::Value;

use super::codec::{AlcmArchive, Codec, Common, Subject};
use super::experiment::{frames, subject};
use super::power::{Meter, Spent, caq_e};
use super::section::{Cell, Section, Table};
use super::stats::caq;
use super::synthetic;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::context::Context;
use crate::stage::Level;

/// Measures the energy of the codecs on the ten synthetic tensors and on each of `files`, repeating each for `min_s`
/// seconds.
///
/// # Errors
/// What a codec or a file reports; [`ErrorKind::Internal`] where a codec without loss gives other bytes.
pub fn energy(ctx: &Context<'_>, meter: &Meter, files: &[PathBuf], min_s: f64) -> Result<Section> {
    let columns = [
        "input",
        "codec",
        "ratio",
        "encode J",
        "decode J",
        "encode CPU s",
        "decode CPU s",
        "CAQ",
        "CAQ-E",
        "energy by",
    ];
    let mut table = Table::new("Energy of one encode and one decode", &columns);
    let tensors: Vec<Subject> = (1..=synthetic::N_EPOCHS).map(subject).collect();
    let frames = frames(ctx);
    let codecs =
        std::iter::once(&Common::Npz as &dyn Codec).chain(frames.iter().map(|frame| frame as &dyn Codec));
    for codec in codecs {
        table.push(row("synthetic tensor, mean of ten", codec, meter, &tensors, min_s)?);
    }
    let archive = AlcmArchive { ctx, name: "alcm".into(), level: Level::Default, lossy: None };
    for path in files {
        let subjects = [Subject::from_file(path.clone())?];
        for codec in [&Common::Zstd(3) as &dyn Codec, &archive] {
            table.push(row(&subjects[0].name, codec, meter, &subjects, min_s)?);
        }
    }
    table.note(
        "CAQ-E = ratio ÷ (joules + processor seconds), encoding: the original report's score, which adds quantities of \
         different units. Compare it only with values of the same meter and machine.",
    );
    table.note(match meter {
        Meter::Rapl(_) => "Counted: all that ran on the packages at the time, idling included.",
        Meter::Model { .. } => {
            "A model, no measurement: this machine shows no counter that may be read. Under it CAQ-E is a measure of \
             speed alone."
        }
    });
    Ok(Section {
        command: "energy",
        title: "Energy".into(),
        intro: format!(
            "Joules by {}. Each codec ran for {min_s} s or more, encoding and decoding apart; means of a call.",
            meter.name()
        ),
        tables: vec![table],
        plots: Vec::new(),
        record: Value::Null,
    })
}

fn row(name: &str, codec: &dyn Codec, meter: &Meter, subjects: &[Subject], min_s: f64) -> Result<[Cell; 10]> {
    let encoded = subjects.iter().map(|subject| codec.encode(subject)).collect::<Result<Vec<_>>>()?;
    for (subject, encoded) in subjects.iter().zip(&encoded) {
        if !codec.is_lossy() && codec.decode(subject, encoded)? != subject.bytes {
            let message = format!("{} on {}: not the bytes that were encoded", codec.name(), subject.name);
            return Err(Error::new(ErrorKind::Internal, message));
        }
    }
    let encode = meter.measure(min_s, || subjects.iter().try_for_each(|s| codec.encode(s).map(drop)))?;
    let decode = meter.measure(min_s, || {
        subjects.iter().zip(&encoded).try_for_each(|(subject, bytes)| codec.decode(subject, bytes).map(drop))
    })?;
    let n_subjects = subjects.len() as f64;
    let ratios =
        subjects.iter().zip(&encoded).map(|(subject, bytes)| subject.bytes.len() as f64 / bytes.len() as f64);
    let ratio = ratios.sum::<f64>() / n_subjects;
    let cpu_s = |spent: &Spent| spent.taken.cpu_s / n_subjects;
    let joules = |spent: &Spent| spent.joules.map(|joules| joules / n_subjects);
    let score = joules(&encode).map(|joules| caq_e(ratio, joules, cpu_s(&encode)));
    let cell = |joules: Option<f64>| joules.map_or(Cell::Empty, Cell::Small);
    Ok([
        name.into(),
        codec.name().into(),
        Cell::Float(ratio, 4),
        cell(joules(&encode)),
        cell(joules(&decode)),
        Cell::Small(cpu_s(&encode)),
        Cell::Small(cpu_s(&decode)),
        Cell::Float(caq(ratio, cpu_s(&encode)), 4),
        score.map_or(Cell::Empty, |score| Cell::Float(score, 2)),
        meter.name().into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;

    #[test]
    fn modelled_joules_follow_processor_seconds_and_say_so() {
        context(|ctx| {
            let file = "tests/data/digits_resnet/params_bf16.safetensors".into();
            let section = energy(ctx, &Meter::Model { watts: 10.0 }, &[file], 0.0).unwrap();
            let rows = section.tables[0].to_json()["rows"].as_array().unwrap().clone();
            assert_eq!(rows.len(), 6);
            for row in rows {
                let value = |column: &str| row[column].as_f64().unwrap();
                assert!((value("encode J") / value("encode CPU s") - 10.0).abs() < 1e-9);
                assert!((value("CAQ-E") * 11.0 * value("encode CPU s") / value("ratio") - 1.0).abs() < 1e-9);
                assert_eq!(row["energy by"], "model: 10 W × processor seconds");
            }
        });
    }
}
