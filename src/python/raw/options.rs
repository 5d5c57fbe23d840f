//! Copies the options a host lends.

use crate::options::{HashSeed, Layer, Options};
use core::slice;
use wsgi_wire::options::{self as abi, hash_seed, switch};
use wsgi_wire::vtable::Bytes;

/// # Safety
///
/// For the options of a start table, during the call that lends it.
pub unsafe fn copy(options: &abi::Options) -> Options {
    // SAFETY: the host lends so many layers.
    let layers = unsafe { array(options.layers, options.layer_count) };
    // SAFETY: the host lends so many texts.
    let warnings = unsafe { array(options.warnings, options.warning_count) };
    Options {
        // SAFETY: received in this call.
        layers: layers.iter().map(|layer| unsafe { copy_layer(layer) }).collect(),
        // SAFETY: received in this call.
        warnings: warnings.iter().map(|text| unsafe { bytes(*text) }).collect(),
        // SAFETY: received in this call.
        python_eggs: unsafe { bytes(options.python_eggs) },
        hash_seed: match options.hash_seed {
            hash_seed::RANDOM => Some(HashSeed::Random),
            seed => u32::try_from(seed).ok().map(HashSeed::Fixed),
        },
        optimize: options.optimize,
        dont_write_bytecode: options.dont_write_bytecode != 0,
        keeps_interpreters: options.keeps_interpreters != 0,
        ignores_case: options.ignores_case != 0,
        is_debugged: options.is_debugged != 0,
    }
}

/// # Safety
///
/// As [`copy`].
unsafe fn copy_layer(layer: &abi::Layer) -> Layer {
    // SAFETY: the caller's promise.
    let group = unsafe { bytes(layer.application_group) };
    Layer {
        application_group: (layer.is_for_one != 0).then_some(group),
        // SAFETY: the caller's promise.
        python_path: unsafe { bytes(layer.python_path) },
        switch_interval: (layer.switch_interval > 0.0).then_some(layer.switch_interval),
        own_gil: switch::said(layer.own_gil),
        free_threading: switch::said(layer.free_threading),
        restrict_stdin: switch::said(layer.restrict_stdin),
        restrict_stdout: switch::said(layer.restrict_stdout),
        restrict_signal: switch::said(layer.restrict_signal),
    }
}

/// # Safety
///
/// As [`copy`].
unsafe fn bytes(bytes: Bytes) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { bytes.as_slice() }.to_vec()
}

/// # Safety
///
/// `count` items at `first` are lent for as long as the caller picks.
unsafe fn array<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(first, count) }
}
