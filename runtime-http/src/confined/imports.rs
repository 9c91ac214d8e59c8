//! Whether a module is valid and can be linked, found before it is compiled: that takes seconds where compiling takes minutes.
//!
//! Linking itself, by the box, has the last word. Here is refused only what it would certainly refuse.

use std::collections::HashSet;

use wasmparser::{
    Parser, Payload, ValidPayload, Validator, WasmFeatures,
    component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentInstanceTypeId},
    types::TypesRef,
};
use wasmtime::{Engine, Linker, Module, Result, Store, bail};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::{advice, instances::Instances};
use crate::engine::MOST_CONCURRENT_COMPONENTS;

/// What is said of a module that is no program.
pub const NO_START: &str = "the module exports no function `_start` without parameters and results; build it as a WASI command, not as a library";

/// The packages of WASI 0.2 of which the box has interfaces.
const P2_PACKAGES: [&str; 7] = ["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];
/// And those of WASI 0.3.
const P3_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "http", "random", "sockets"];

/// What else the box has for components, whichever WASI they are made for. These are drafts: each version is an interface of its own.
const OTHERS: [&str; 5] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:logging/logging@0.1.0-draft",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
];

/// The WASI that a component is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasi {
    P2,
    /// It imports or exports something of WASI 0.3, maybe beside WASI 0.2.
    P3,
}

impl Wasi {
    const ALL: [(Wasi, &[&str]); 2] = [(Wasi::P2, &P2_PACKAGES), (Wasi::P3, &P3_PACKAGES)];

    /// What is imported as any 0.2 is the same to the linker, and so is any 0.3. Candidates for a release are others.
    fn has_version(self, version: &str) -> bool {
        let patch = match self {
            Wasi::P2 => version.strip_prefix("0.2."),
            Wasi::P3 => version.strip_prefix("0.3."),
        };
        patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Of the interface `name`, if the box has its package.
    fn offering(name: &str) -> Option<Wasi> {
        let (package, rest) = name.strip_prefix("wasi:")?.split_once('/')?;
        let (_, version) = rest.split_once('@')?;
        let offers = |(wasi, packages): &&(Wasi, &[&str])| packages.contains(&package) && wasi.has_version(version);
        Self::ALL.iter().find(offers).map(|(wasi, _)| *wasi)
    }
}

/// # Errors
/// What is wrong with the core module `bytes`, in the words of its validator or of the linker.
pub fn check_module(engine: &Engine, bytes: &[u8]) -> Result<()> {
    Module::validate(engine, bytes)?;
    let mut starts = false;
    let mut known = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(imports) => {
                let known = match &known {
                    Some(known) => known,
                    None => known.insert(preview1(engine)?),
                };
                for import in imports.into_imports() {
                    let import = import?;
                    if !known.contains(&(import.module.to_owned(), import.name.to_owned())) {
                        let advice = advice::of_import(import.module, import.name);
                        let advice = advice.map_or_else(String::new, |advice| format!("; it is {advice}"));
                        bail!("unknown import: `{}::{}` has not been defined{advice}", import.module, import.name);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    starts |= export?.name == "_start";
                }
            }
            _ => {}
        }
    }
    if !starts {
        bail!(NO_START);
    }
    Ok(())
}

/// What modules may import.
fn preview1(engine: &Engine) -> Result<HashSet<(String, String)>> {
    // Without a context: making one takes random numbers, which a static binary reads from a file, and there are none here.
    let mut linker: Linker<Option<WasiP1Ctx>> = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |context| context.as_mut().expect("nothing is called here"))?;
    let mut store = Store::new(engine, None);
    Ok(linker.iter(&mut store).map(|(module, name, _)| (module.to_owned(), name.to_owned())).collect())
}

/// Bytes of functions in `binary`, in all modules of a component: what takes time to compile.
///
/// # Errors
/// If it is not valid.
pub fn code_bytes(binary: &[u8]) -> Result<u64> {
    let mut bytes = 0;
    for payload in Parser::new(0).parse_all(binary) {
        if let Payload::CodeSectionStart { size, .. } = payload? {
            bytes += u64::from(size);
        }
    }
    Ok(bytes)
}

/// Whether `bytes`, of which nothing is known yet, may be a component of WASI 0.3. One that hides it in escapes of its text is refused later.
pub fn may_be_p3(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"@0.3.").is_some()
}

/// Gives what it is made for.
///
/// # Errors
/// What is wrong with the component `bytes`.
pub fn check_component(engine: &Engine, bytes: &[u8]) -> Result<Wasi> {
    // Which features there are, the engine says: of the modules now, of the component when it is compiled.
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut depth = 0;
    let (mut imported, mut exported) = (Vec::new(), Vec::new());
    let mut instances = Instances::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        instances.payload(&payload)?;
        match &payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                depth += 1;
                if let Some(module) = bytes.get(unchecked_range.clone()) {
                    Module::validate(engine, module)?;
                }
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports.clone() {
                    imported.push(import?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports.clone() {
                    exported.push(export?.name.name);
                }
            }
            _ => {}
        }
        // Functions are the modules', which are validated above.
        if let ValidPayload::End(types) = validator.payload(&payload)?
            && depth < 0
        {
            check_instances(types.as_ref(), &imported)?;
            let is_p3 = |name: &&str| Wasi::offering(name) == Some(Wasi::P3);
            if !imported.iter().chain(&exported).any(is_p3) {
                return Ok(Wasi::P2);
            }
            check_concurrent(&instances)?;
            return Ok(Wasi::P3);
        }
    }
    Ok(Wasi::P2)
}

/// Each component that it consists of may have a call that waits, for which the box has so many stacks.
fn check_concurrent(instances: &Instances) -> Result<()> {
    match instances.with_functions() {
        Some(count) if count <= MOST_CONCURRENT_COMPONENTS => Ok(()),
        Some(count) => bail!(
            "it consists of {count} components with functions; of WASI 0.3 there may be {MOST_CONCURRENT_COMPONENTS} of them"
        ),
        None => bail!("it instantiates a component that it is given, which components of WASI 0.3 must not do here"),
    }
}

fn check_instances(types: TypesRef<'_>, imported: &[&str]) -> Result<()> {
    for name in imported {
        let Some(item) = types.component_item_for_import(name) else { continue };
        let needed = match item.ty {
            ComponentEntityType::Instance(instance) => has_more_than_types(types, instance),
            ComponentEntityType::Type { .. } => false,
            ComponentEntityType::Module(_)
            | ComponentEntityType::Func(_)
            | ComponentEntityType::Value(_)
            | ComponentEntityType::Component(_) => true,
        };
        if needed && Wasi::offering(name).is_none() && !OTHERS.contains(name) {
            let advice = advice::of_interface(name).map_or_else(String::new, |advice| format!("; it is {advice}"));
            bail!(
                "component imports `{name}`, which there is not{advice}; there are the interfaces of WASI 0.2 and 0.3: {}; and {}",
                P2_PACKAGES.map(|package| format!("wasi:{package}")).join(", "),
                OTHERS.join(", ")
            );
        }
    }
    Ok(())
}

/// An instance of nothing but types needs no implementation.
fn has_more_than_types(types: TypesRef<'_>, instance: ComponentInstanceTypeId) -> bool {
    types[instance].exports.values().any(|item| match item.ty {
        ComponentEntityType::Type { created, .. } => matches!(created, ComponentAnyTypeId::Resource(_)),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineSize, Engines};

    fn said(text: &str) -> String {
        let engines = Engines::new(EngineSize::for_compiling(), false).unwrap();
        let bytes = wat::parse_str(text).unwrap();
        let checked = if text.starts_with("(component") {
            check_component(engines.plain(), &bytes).map(drop)
        } else {
            check_module(engines.plain(), &bytes)
        };
        checked.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn modules() {
        let start = r#"(func (export "_start"))"#;
        assert_eq!(said(&format!("(module {start})")), "");
        let random = r#"(import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))"#;
        assert_eq!(said(&format!("(module {random} {start})")), "");
        let unknown = said(&format!(r#"(module (import "env" "emscripten" (func)) {start})"#));
        assert!(unknown.contains("env::emscripten"), "{unknown}");
        let browser = said(&format!(r#"(module (import "gojs" "runtime.wasmExit" (func (param i32))) {start})"#));
        assert!(browser.contains("GOOS=wasip1"), "{browser}");
        assert!(said("(module)").contains("_start"));
        assert!(said(&format!("(module {start} (func (drop)))")).contains("type mismatch"));
    }

    #[test]
    fn components() {
        assert_eq!(said("(component)"), "");
        let importing = |name: &str, items: &str| format!(r#"(component (import "{name}" (instance {items})))"#);
        let (function, resource, kind) =
            (r#"(export "f" (func))"#, r#"(export "r" (type (sub resource)))"#, r#"(export "t" (type (eq 0)))"#);
        for items in [function, resource] {
            assert_eq!(said(&importing("wasi:cli/stdout@0.2.9", items)), "");
            for other in OTHERS {
                assert_eq!(said(&importing(other, items)), "");
            }
            let foreign = said(&importing("fermyon:spin/key-value@2.0.0", items));
            assert!(foreign.contains("Spin") && foreign.contains("wasi:keyvalue/store@0.2.0-draft"), "{foreign}");
            for missing in [
                "wasi:keyvalue/store@0.2.0",
                "wasi:cli/stdout@0.3.0-rc-2025-09-16",
                "wasi:io/streams@0.3.0",
                "wasi:keyvalue/watcher@0.2.0-draft",
                "wasi:config/runtime@0.2.0-draft",
                "own:package/interface",
                "plain",
            ] {
                assert!(said(&importing(missing, items)).contains(missing), "{missing}");
            }
        }
        assert_eq!(said(&importing("own:package/types", &format!("(type u8) {kind}"))), "");
        assert!(said("(component (core module (func (drop))))").contains("type mismatch"));
        // Those of a component inside are satisfied there.
        let inner = format!("(component {})", importing("own:package/interface", function));
        assert_eq!(said(&inner), "");
    }
}
