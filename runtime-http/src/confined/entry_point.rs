//! What a box calls of a module or component.

use wasmparser::{
    Export,
    component_types::ComponentEntityType,
    types::{EntityType, TypesRef},
};

use super::{imports::Wasi, unusable::Unusable};

/// # Errors
/// If the module of `types` does not export `_start` as a command does.
pub fn check_start(types: TypesRef<'_>, start: Option<&Export<'_>>) -> Result<(), Unusable> {
    match start.and_then(|export| types.entity_type_from_export(export)) {
        Some(EntityType::Func(id) | EntityType::FuncExact(id)) => {
            let function = types[id].unwrap_func();
            if function.params().is_empty() && function.results().is_empty() {
                return Ok(());
            }
            Err(Unusable::NoStart)
        }
        Some(EntityType::Table(_) | EntityType::Memory(_) | EntityType::Global(_) | EntityType::Tag(_)) | None => {
            Err(Unusable::NoStart)
        }
    }
}

/// `exported`: the names of what the component of `types` exports.
///
/// # Errors
/// If nothing of it can be called.
pub fn check_exports(types: TypesRef<'_>, exported: &[&str]) -> Result<(), Unusable> {
    let is_called = |name: &&str| {
        let Some(function) = function_of(name) else { return false };
        let Some(ComponentEntityType::Instance(instance)) = types.component_item_for_export(name).map(|item| item.ty)
        else {
            return false;
        };
        types[instance].exports.get(function).is_some_and(|item| matches!(item.ty, ComponentEntityType::Func(_)))
    };
    exported.iter().any(is_called).then_some(()).ok_or(Unusable::NoEntryPoint)
}

/// The function that is called of the interface `name`, if any is.
fn function_of(name: &str) -> Option<&'static str> {
    let (interface, _) = name.split_once('@')?;
    match (interface, Wasi::offering(name)?) {
        ("wasi:http/incoming-handler", Wasi::P2) | ("wasi:http/handler", Wasi::P3) => Some("handle"),
        ("wasi:cli/run", Wasi::P2 | Wasi::P3) => Some("run"),
        _ => None,
    }
}
