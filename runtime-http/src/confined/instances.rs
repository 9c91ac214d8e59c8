//! What a component is instantiated to.

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Payload, Result,
};

/// How many of each there are when it runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Instantiated {
    /// Components with functions of their own, itself among them.
    pub functions: u32,
    /// Core modules, memories and tables; maybe more of those that it is given, or that are made for calls between its components.
    pub instances: u32,
    pub memories: u32,
    pub tables: u32,
}

/// `None` if nobody knows before it runs.
type Count = Option<Instantiated>;

/// Follows the definitions of a component, by its parser's payloads.
#[derive(Debug, Default)]
pub struct Instances {
    /// What is being read, after what is around it.
    around: Vec<Definition>,
    root: Option<Definition>,
}

/// A component, or a module inside of one.
#[derive(Debug)]
struct Definition {
    encoding: Encoding,
    /// What it brings itself.
    own: Instantiated,
    /// With all that it instantiates.
    inside: Count,
    /// For each component, and each module, that it knows by an index, what that brings.
    components: Vec<Count>,
    modules: Vec<Instantiated>,
}

impl Instantiated {
    fn plus(self, other: Instantiated) -> Instantiated {
        Instantiated {
            functions: self.functions.saturating_add(other.functions),
            instances: self.instances.saturating_add(other.instances),
            memories: self.memories.saturating_add(other.memories),
            tables: self.tables.saturating_add(other.tables),
        }
    }
}

impl Definition {
    fn new(encoding: Encoding) -> Definition {
        let instances = u32::from(encoding == Encoding::Module);
        Definition {
            encoding,
            own: Instantiated { instances, ..Instantiated::default() },
            inside: Some(Instantiated::default()),
            components: Vec::new(),
            modules: Vec::new(),
        }
    }

    fn count(&self) -> Count {
        Some(self.inside?.plus(self.own))
    }

    fn component(&self, index: u32) -> Count {
        self.components.get(usize::try_from(index).ok()?).copied().flatten()
    }

    /// One that it is given is counted as an instance alone.
    fn module(&self, index: u32) -> Instantiated {
        let known = usize::try_from(index).ok().and_then(|index| self.modules.get(index));
        known.copied().unwrap_or(GIVEN)
    }

    fn instantiates(&mut self, count: Count) {
        self.inside = self.inside.zip(count).map(|(inside, count)| inside.plus(count));
    }
}

const GIVEN: Instantiated = Instantiated { functions: 0, instances: 1, memories: 0, tables: 0 };

impl Instances {
    /// All of it; `None` if it instantiates a component that it is given.
    pub fn all(&self) -> Option<Instantiated> {
        self.root.as_ref().and_then(Definition::count)
    }

    /// # Errors
    /// The parser's.
    pub fn payload(&mut self, payload: &Payload<'_>) -> Result<()> {
        if let Payload::Version { encoding, .. } = payload {
            self.around.push(Definition::new(*encoding));
            return Ok(());
        }
        if let Payload::ComponentAliasSection(aliases) = payload {
            return aliases.clone().into_iter().try_for_each(|alias| {
                self.alias(&alias?);
                Ok(())
            });
        }
        let Some(current) = self.around.last_mut() else { return Ok(()) };
        match payload {
            Payload::TableSection(tables) => current.own.tables = tables.count(),
            Payload::MemorySection(memories) => current.own.memories = memories.count(),
            Payload::End(_) => self.end(),
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    match import?.ty {
                        ComponentTypeRef::Component(_) => current.components.push(None),
                        ComponentTypeRef::Module(_) => current.modules.push(GIVEN),
                        _ => {}
                    }
                }
            }
            // An export is known by an index of its own.
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Component => current.components.push(current.component(export.index)),
                        ComponentExternalKind::Module => current.modules.push(current.module(export.index)),
                        _ => {}
                    }
                }
            }
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        current.instantiates(Some(current.module(module_index)));
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                        current.instantiates(current.component(component_index));
                    }
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    // Then a call can be in it.
                    if matches!(function?, CanonicalFunction::Lift { .. }) {
                        current.own.functions = 1;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What was read is known to what is around it.
    fn end(&mut self) {
        let Some(ended) = self.around.pop() else { return };
        match self.around.last_mut() {
            Some(around) if ended.encoding == Encoding::Component => around.components.push(ended.count()),
            Some(around) => around.modules.push(ended.own),
            None => self.root = Some(ended),
        }
    }

    fn alias(&mut self, alias: &ComponentAlias<'_>) {
        let outer = |count: u32| usize::try_from(count).ok().and_then(|count| self.around.iter().rev().nth(count));
        let (component, module) = match *alias {
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => (Some(None), None),
            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => (None, Some(GIVEN)),
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                (Some(outer(count).and_then(|outer| outer.component(index))), None)
            }
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::CoreModule, count, index } => {
                (None, Some(outer(count).map_or(GIVEN, |outer| outer.module(index))))
            }
            _ => return,
        };
        let Some(current) = self.around.last_mut() else { return };
        current.components.extend(component);
        current.modules.extend(module);
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::Parser;

    use super::*;

    const FUNCTIONS: &str = r#"(core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))"#;

    fn all(text: &str) -> Count {
        let bytes = wat::parse_str(text).unwrap();
        let mut instances = Instances::default();
        for payload in Parser::new(0).parse_all(&bytes) {
            instances.payload(&payload.unwrap()).unwrap();
        }
        instances.all()
    }

    fn count(text: &str) -> Option<u32> {
        all(text).map(|all| all.functions)
    }

    #[test]
    fn instances_memories_and_tables_are_counted() {
        let large = "(core module $large (memory 1) (memory 1) (table 1 funcref))";
        let once = format!("{large} (core instance (instantiate $large))");
        let counts = |instances, memories, tables| Some(Instantiated { functions: 0, instances, memories, tables });
        assert_eq!(all(&format!("(component {large})")), counts(0, 0, 0), "it is not instantiated");
        assert_eq!(all(&format!("(component {once} {once})").replacen("$large", "$first", 2)), counts(2, 4, 2));
        let inner = "(component $inner (core instance (instantiate $large)))";
        let twice = "(instance (instantiate $inner)) (instance (instantiate $inner))";
        assert_eq!(all(&format!("(component {large} {inner} {twice})")), counts(2, 4, 2), "by an alias");
        let given = r#"(component (import "m" (core module $m)) (core instance (instantiate $m)))"#;
        assert_eq!(all(given), counts(1, 0, 0));
    }

    #[test]
    fn those_with_functions_are_counted() {
        assert_eq!(count("(component)"), Some(0));
        assert_eq!(count(&format!("(component {FUNCTIONS})")), Some(1));
        let inner = format!("(component $inner {FUNCTIONS})");
        assert_eq!(count(&format!("(component {inner} {FUNCTIONS})")), Some(1), "it is not instantiated");
        let twice = "(instance (instantiate $inner)) (instance (instantiate $inner))";
        assert_eq!(count(&format!("(component {inner} {twice})")), Some(2));
        assert_eq!(
            count(&format!(
                "(component {inner} (component $mid {twice} {FUNCTIONS}) {FUNCTIONS} \
            (instance (instantiate $mid)) (instance (instantiate $mid)))"
            )),
            Some(7),
            "by an alias, and again and again"
        );
        let empty = "(component $empty (import \"t\" (type (sub resource))))";
        assert_eq!(count(&format!("(component {empty} {FUNCTIONS})")), Some(1));
    }

    #[test]
    fn many_are_no_longer_counted_one_by_one() {
        let mut text = format!("(component $c0 {FUNCTIONS})");
        for level in 1..30 {
            let before = level - 1;
            text = format!(
                "{text} (component $c{level} (instance (instantiate $c{before})) (instance (instantiate $c{before})))"
            );
        }
        assert_eq!(
            count(&format!("(component {text} {})", "(instance (instantiate $c29)) ".repeat(16))),
            Some(u32::MAX)
        );
    }

    #[test]
    fn of_what_it_is_given_nobody_knows() {
        let given = "(component (import \"c\" (component $c)) (instance (instantiate $c)))";
        assert_eq!(count(given), None);
        let exported = format!(
            "(component (component $c {FUNCTIONS}) (export $d \"d\" (component $c)) (instance (instantiate $d)))"
        );
        assert_eq!(count(&exported), Some(1));
    }
}
