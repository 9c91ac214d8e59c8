//! Whether a module is valid, can be linked and instantiated, found before it is compiled: that takes seconds where compiling takes minutes.
//!
//! Linking itself, by the box, has the last word. Here is refused only what it would certainly refuse.

use std::collections::HashSet;

use wasmparser::{
    Parser, Payload, ValidPayload, Validator, WasmFeatures,
    component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentInstanceTypeId},
    types::TypesRef,
};
use wasmtime::{Engine, Linker, Module, Result, Store};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::{
    entry_point,
    instances::{Instances, Instantiated},
    optional_interfaces::OptionalInterfaces,
    unusable::Unusable,
};
use crate::engine::{
    MOST_CONCURRENT_COMPONENTS, MOST_CORE_INSTANCES, MOST_MEMORIES, MOST_TABLE_ELEMENTS, MOST_TABLES,
    MOST_TABLES_OF_MODULE,
};

/// The packages of WASI 0.2 of which the box has interfaces.
pub(super) const P2_PACKAGES: [&str; 7] = ["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];
/// And those of WASI 0.3.
const P3_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "http", "random", "sockets"];

/// What else the box has for components, whichever WASI they are made for. These are drafts: each version is an interface of its own.
pub(super) const OTHERS: [&str; 5] = [
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
        // Whatever was built from it.
        let version = version.split('+').next().unwrap_or_default();
        let patch = match self {
            Wasi::P2 => version.strip_prefix("0.2."),
            Wasi::P3 => version.strip_prefix("0.3."),
        };
        patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// Of the interface `name`, if the box has its package.
    pub(super) fn offering(name: &str) -> Option<Wasi> {
        let (package, rest) = name.strip_prefix("wasi:")?.split_once('/')?;
        let (_, version) = rest.split_once('@')?;
        let offers = |(wasi, packages): &&(Wasi, &[&str])| packages.contains(&package) && wasi.has_version(version);
        Self::ALL.iter().find(offers).map(|(wasi, _)| *wasi)
    }
}

/// # Errors
/// What is wrong with the core module `bytes`, in the words of its validator, or [`Unusable`].
pub fn check_module(engine: &Engine, bytes: &[u8]) -> Result<()> {
    Module::validate(engine, bytes)?;
    // For types: of the functions themselves, which are validated above, it sees nothing.
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut start = None;
    let mut known = None;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        check_slots(&payload)?;
        match &payload {
            Payload::ImportSection(imports) => {
                let known = match &known {
                    Some(known) => known,
                    None => known.insert(preview1(engine)?),
                };
                for import in imports.clone().into_imports() {
                    let import = import?;
                    let of = (import.module.to_owned(), import.name.to_owned());
                    if !known.contains(&of) {
                        let (module, name) = of;
                        return Err(Unusable::UnknownImport { module, name }.into());
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    if export.name == "_start" {
                        start = Some(export);
                    }
                }
            }
            _ => {}
        }
        if let ValidPayload::End(types) = validator.payload(&payload)? {
            entry_point::check_start(types.as_ref(), start.as_ref())?;
        }
    }
    Ok(())
}

/// Whether the pools have what the module with that section defines.
fn check_slots(payload: &Payload<'_>) -> Result<()> {
    match payload {
        Payload::TableSection(tables) => {
            let count = tables.count();
            if count > MOST_TABLES_OF_MODULE {
                return Err(Unusable::ManyTables { count }.into());
            }
            for table in tables.clone() {
                let elements = table?.ty.initial;
                if elements > MOST_TABLE_ELEMENTS as u64 {
                    return Err(Unusable::LargeTable { elements }.into());
                }
            }
            Ok(())
        }
        Payload::MemorySection(memories) if memories.count() > MOST_MEMORIES => {
            Err(Unusable::ManyMemories { count: memories.count() }.into())
        }
        _ => Ok(()),
    }
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
/// What is wrong with the component `bytes`, in the words of its validator, or [`Unusable`].
pub fn check_component(engine: &Engine, bytes: &[u8], optional: OptionalInterfaces) -> Result<Wasi> {
    // Which features there are, the engine says: of the modules now, of the component when it is compiled.
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut depth = 0;
    let (mut imported, mut exported) = (Vec::new(), Vec::new());
    let mut instances = Instances::default();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        check_slots(&payload)?;
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
            check_imports(types.as_ref(), &imported)?;
            let is_p3 = imported.iter().chain(&exported).any(|name| Wasi::offering(name) == Some(Wasi::P3));
            optional.check(is_p3, imported.iter().copied())?;
            check_instantiated(&instances, is_p3)?;
            entry_point::check_exports(types.as_ref(), &exported)?;
            return Ok(if is_p3 { Wasi::P3 } else { Wasi::P2 });
        }
    }
    Ok(Wasi::P2)
}

/// Whether the pools have what it is instantiated to.
fn check_instantiated(of: &Instances, is_p3: bool) -> Result<(), Unusable> {
    let Some(Instantiated { functions, instances, memories, tables }) = of.all() else {
        return if is_p3 { Err(Unusable::UnknownComponents) } else { Ok(()) };
    };
    if is_p3 && functions > MOST_CONCURRENT_COMPONENTS {
        return Err(Unusable::ManyComponents { count: functions });
    }
    if instances > MOST_CORE_INSTANCES || memories > MOST_MEMORIES || tables > MOST_TABLES {
        return Err(Unusable::ManyInstances { instances, memories, tables });
    }
    Ok(())
}

fn check_imports(types: TypesRef<'_>, imported: &[&str]) -> Result<(), Unusable> {
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
            return Err(Unusable::UnknownInterface { name: (*name).to_owned() });
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
mod tests;
