//! Why a valid module cannot be linked, or never instantiated. It is found before the module is compiled; linking finds the same in code that
//! was compiled where more was on.

use super::{
    advice,
    imports::{OTHERS, P2_PACKAGES},
};
use crate::engine::{
    MOST_CONCURRENT_COMPONENTS, MOST_CORE_INSTANCES, MOST_MEMORIES, MOST_TABLE_ELEMENTS, MOST_TABLES,
    MOST_TABLES_OF_MODULE,
};

#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("unknown import: `{module}::{name}` has not been defined{}", hint(advice::of_import(module, name)))]
    UnknownImport { module: String, name: String },
    #[error(
        "component imports `{name}`, which there is not{}; there are the interfaces of WASI 0.2 and 0.3: {}; and {}",
        hint(advice::of_interface(name)), P2_PACKAGES.map(|package| format!("wasi:{package}")).join(", "), OTHERS.join(", ")
    )]
    UnknownInterface { name: String },
    #[error(
        "the module exports no function `_start` without parameters and results; build it as a WASI command, not as a library"
    )]
    NoStart,
    #[error(
        "the component exports none of wasi:http/incoming-handler (WASI 0.2), wasi:http/handler (WASI 0.3), and wasi:cli/run (either)"
    )]
    NoEntryPoint,
    #[error(
        "a component of WASI 0.3, which this box does not run: build it for WASI 0.2, or ask its operator for --wasi-p3 (WASI_P3=true)"
    )]
    P3Off,
    #[error(
        "the component keeps values (wasi:keyvalue), which this box does not offer: ask its operator for --keyvalue-dir (KEYVALUE_DIR) or --keyvalue-redis (KEYVALUE_REDIS)"
    )]
    KeyvalueOff,
    /// Each of them may have a call that waits, for which the box has so many stacks.
    #[error(
        "it consists of {count} components with functions; of WASI 0.3 there may be {MOST_CONCURRENT_COMPONENTS} of them"
    )]
    ManyComponents { count: u32 },
    #[error("it instantiates a component that it is given, which components of WASI 0.3 must not do here")]
    UnknownComponents,
    #[error(
        "a table has {elements} elements at its start, of which there may be {MOST_TABLE_ELEMENTS}; {}",
        advice::LARGE_TABLE
    )]
    LargeTable { elements: u64 },
    #[error("a module has {count} tables, of which there may be {MOST_TABLES_OF_MODULE}; {}", advice::MERGED)]
    ManyTables { count: u32 },
    #[error("a module has {count} memories, of which there may be {MOST_MEMORIES}; {}", advice::MERGED)]
    ManyMemories { count: u32 },
    #[error(
        "it instantiates {instances} core modules with {memories} memories and {tables} tables, of which there may be \
         {MOST_CORE_INSTANCES}, {MOST_MEMORIES} and {MOST_TABLES}; {}",
        advice::COMPOSED
    )]
    ManyInstances { instances: u32, memories: u32, tables: u32 },
}

fn hint(advice: Option<&str>) -> String {
    advice.map_or_else(String::new, |advice| format!("; it is {advice}"))
}
