//! `lab compare`: everybody's codecs and this project's, on the synthetic tensors and on files.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::codec::{AlcmArchive, Codec, Common, Measured, Subject, mean_of, measure};
use super::experiment::{frames, sha256, subject};
use super::section::{Cell, Plot, Section, Table};
use super::stats::caq;
use super::svg::bars;
use super::synthetic::N_EPOCHS;
use crate::error::Result;
use crate::pipeline::context::Context;
use crate::pipeline::lossy::settings::LossySettings;
use crate::stage::Level;

/// A lossy preset and its name.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub settings: LossySettings,
}

const COLUMNS: [&str; 8] =
    ["codec", "bytes", "ratio", "CAQ", "encode MB/s", "decode MB/s", "relative L2", "bit for bit"];

/// Every codec on the ten synthetic tensors, if `with_synthetic`, and on each of `files`, `runs` times each.
///
/// # Errors
/// What a codec reports, and files that cannot be read.
pub fn compare(
    ctx: &Context<'_>,
    files: &[PathBuf],
    with_synthetic: bool,
    presets: &[Preset],
    runs: usize,
) -> Result<Section> {
    let (mut tables, mut plots, mut record) = (Vec::new(), Vec::new(), Map::new());
    let mut add = |subjects: &[Subject], title: &str, codecs: &[&dyn Codec]| -> Result<()> {
        let mut table = Table::new(title, &COLUMNS);
        let (mut ratios, mut outputs) = (Vec::new(), Map::new());
        for codec in codecs {
            let all: Vec<Measured> =
                subjects.iter().map(|subject| measure(ctx, *codec, subject, runs)).collect::<Result<_>>()?;
            ratios.push((codec.name().to_owned(), mean_of(&all, |m| m.ratio)));
            let made = all.iter().map(|m| json!({"bytes": m.encoded.len(), "sha256": sha256(&m.encoded)}));
            outputs.insert(codec.name().to_owned(), Value::Array(made.collect()));
            table.push(row(codec.name(), &all));
        }
        let inputs: Vec<String> = subjects.iter().map(|subject| sha256(&subject.bytes)).collect();
        record.insert(title.to_owned(), json!({"inputs": inputs, "outputs": outputs}));
        plots.push(Plot { caption: format!("{title}: ratio"), svg: bars(&ratios, "×") });
        tables.push(table);
        Ok(())
    };
    let frames = frames(ctx);
    let common = || Common::ALL.iter().map(|codec| codec as &dyn Codec);
    if with_synthetic {
        let codecs: Vec<_> = common().chain(frames.iter().map(|frame| frame as &dyn Codec)).collect();
        let subjects: Vec<_> = (1..=N_EPOCHS).map(subject).collect();
        add(&subjects, "Ten synthetic tensors (means)", &codecs)?;
    }
    let levels = [("fast", Level::Fast), ("default", Level::Default), ("high", Level::High)];
    let exact =
        levels.map(|(name, level)| AlcmArchive { ctx, name: format!("alcm {name}"), level, lossy: None });
    let lossy: Vec<AlcmArchive<'_>> = presets
        .iter()
        .map(|preset| AlcmArchive {
            ctx,
            name: format!("alcm lossy, {}", preset.name),
            level: Level::Default,
            lossy: Some(preset.settings.clone()),
        })
        .collect();
    let codecs: Vec<_> =
        common().chain(exact.iter().chain(&lossy).map(|archive| archive as &dyn Codec)).collect();
    for file in files {
        let subject = Subject::from_file(file.clone())?;
        let title = subject.name.clone();
        add(&[subject], &title, &codecs)?;
    }
    Ok(Section {
        command: "compare",
        title: "Comparison of methods".into(),
        intro: format!(
            "Every result was decoded and compared with its input. Speeds are of the uncompressed bytes on the wall, \
             medians of {runs} runs, {} threads for alcm and one for the others; CAQ = ratio ÷ (processor seconds of \
             encoding + 1). npz deflates a file of several tensors as one array of bytes.",
            ctx.pool.current_num_threads()
        ),
        tables,
        plots,
        record: record.into(),
    })
}

fn row(name: &str, all: &[Measured]) -> [Cell; COLUMNS.len()] {
    [
        name.into(),
        Cell::Float(mean_of(all, |m| m.encoded.len() as f64), 0),
        Cell::Float(mean_of(all, |m| m.ratio), 4),
        Cell::Float(mean_of(all, |m| caq(m.ratio, m.encode.cpu_s)), 4),
        Cell::Float(mean_of(all, Measured::encode_mb_s), 1),
        Cell::Float(mean_of(all, Measured::decode_mb_s), 1),
        Cell::Small(mean_of(all, |m| m.relative_l2)),
        all.iter().all(|m| m.is_exact).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::tests::context;
    use crate::pipeline::lossy::settings::Goal;

    #[test]
    fn files_are_compared_by_every_codec() {
        let file = PathBuf::from("tests/data/digits_resnet/params_bf16.safetensors");
        context(|ctx| {
            let settings = LossySettings::new(Goal::RelL2(0.01));
            let presets = [Preset { name: "test".into(), settings }];
            let section = compare(ctx, &[file], false, &presets, 1).unwrap();
            let rows = section.tables[0].to_json()["rows"].clone();
            let rows = rows.as_array().unwrap();
            assert_eq!(rows.len(), Common::ALL.len() + 3 + 1);
            let ratio = |name: &str| {
                let row = rows.iter().find(|row| row["codec"] == name).unwrap();
                row["ratio"].as_f64().unwrap()
            };
            assert!(ratio("alcm default") > ratio("zstd -19") && ratio("zstd -19") > ratio("uncompressed"));
            let last = rows.last().unwrap();
            assert_eq!(last["bit for bit"], false);
            assert!(last["relative L2"].as_f64().unwrap() <= 0.01);
        });
    }
}
