//! The plan of a process' interpreters as the Python half takes it.
#![forbid(unsafe_code)]

use crate::config::interpreters::{HashSeed, Layer, Plan};
use wsgi_wire::options::{self as abi, hash_seed, switch};
use wsgi_wire::vtable::Bytes;

/// Lends `plan` to `body`.
pub fn lend<T>(plan: &Plan, body: impl FnOnce(&abi::Options) -> T) -> T {
    let layers: Vec<abi::Layer> = plan.layers.iter().map(layer).collect();
    let warnings: Vec<Bytes> = plan.warnings.iter().map(|text| Bytes::new(text)).collect();
    body(&abi::Options {
        layers: layers.as_ptr(),
        layer_count: layers.len(),
        warnings: warnings.as_ptr(),
        warning_count: warnings.len(),
        python_eggs: Bytes::new(&plan.python_eggs),
        hash_seed: match plan.hash_seed {
            None => hash_seed::UNSET,
            Some(HashSeed::Random) => hash_seed::RANDOM,
            Some(HashSeed::Fixed(seed)) => seed.into(),
        },
        optimize: i32::try_from(plan.optimize).unwrap_or(i32::MAX),
        dont_write_bytecode: plan.dont_write_bytecode.into(),
        keeps_interpreters: plan.keeps_interpreters.into(),
        ignores_case: plan.ignores_case.into(),
        is_debugged: plan.is_debugged.into(),
    })
}

/// A layer that borrows from `layer`.
fn layer(layer: &Layer) -> abi::Layer {
    let (group, options) = (layer.application_group.as_deref(), &layer.options);
    abi::Layer {
        application_group: Bytes::new(group.unwrap_or_default()),
        python_path: Bytes::new(options.python_path.as_deref().unwrap_or_default()),
        switch_interval: options.switch_interval.map_or(0.0, |time| time.as_secs_f64()),
        is_for_one: group.is_some().into(),
        own_gil: switch::of(options.own_gil),
        free_threading: switch::of(options.free_threading),
        restrict_stdin: switch::of(options.restrict_stdin),
        restrict_stdout: switch::of(options.restrict_stdout),
        restrict_signal: switch::of(options.restrict_signal),
    }
}
