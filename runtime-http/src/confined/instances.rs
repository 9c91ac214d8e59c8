//! How many components a component consists of.

use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Payload, Result,
};

/// How many: `None` if nobody knows before it runs.
type Count = Option<u32>;

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
    /// Whether it lifts functions: then a call can be in it.
    has_functions: bool,
    /// Of what it instantiates, those with functions.
    inside: Count,
    /// For each component that it knows by an index, how many that brings.
    components: Vec<Count>,
}

fn plus(one: Count, other: Count) -> Count {
    Some(one?.saturating_add(other?))
}

impl Definition {
    fn new(encoding: Encoding) -> Definition {
        Definition { encoding, has_functions: false, inside: Some(0), components: Vec::new() }
    }

    fn count(&self) -> Count {
        plus(self.inside, Some(u32::from(self.has_functions)))
    }

    fn component(&self, index: u32) -> Count {
        self.components.get(usize::try_from(index).ok()?).copied().flatten()
    }
}

impl Instances {
    /// How many, itself among them, have functions of their own; `None` if it instantiates a component that it is given.
    pub fn with_functions(&self) -> Option<u32> {
        self.root.as_ref().and_then(Definition::count)
    }

    /// # Errors
    /// The parser's.
    pub fn payload(&mut self, payload: &Payload<'_>) -> Result<()> {
        match payload {
            Payload::Version { encoding, .. } => self.around.push(Definition::new(*encoding)),
            Payload::End(_) => {
                let Some(ended) = self.around.pop() else { return Ok(()) };
                match self.around.last_mut() {
                    Some(around) if ended.encoding == Encoding::Component => around.components.push(ended.count()),
                    Some(_) => {}
                    None => self.root = Some(ended),
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    if matches!(import?.ty, ComponentTypeRef::Component(_)) {
                        self.known(None);
                    }
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases.clone() {
                    match alias? {
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                            self.known(None)
                        }
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            let outer =
                                usize::try_from(count).ok().and_then(|count| self.around.iter().rev().nth(count));
                            let count = outer.and_then(|outer| outer.component(index));
                            self.known(count);
                        }
                        _ => {}
                    }
                }
            }
            // An export is known by an index of its own.
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Component {
                        let count = self.around.last().and_then(|current| current.component(export.index));
                        self.known(count);
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance?
                        && let Some(current) = self.around.last_mut()
                    {
                        current.inside = plus(current.inside, current.component(component_index));
                    }
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    if matches!(function?, CanonicalFunction::Lift { .. })
                        && let Some(current) = self.around.last_mut()
                    {
                        current.has_functions = true;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The component that is being read knows one more, which brings so many.
    fn known(&mut self, count: Count) {
        if let Some(current) = self.around.last_mut() {
            current.components.push(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::Parser;

    use super::*;

    const FUNCTIONS: &str = r#"(core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))"#;

    fn count(text: &str) -> Count {
        let bytes = wat::parse_str(text).unwrap();
        let mut instances = Instances::default();
        for payload in Parser::new(0).parse_all(&bytes) {
            instances.payload(&payload.unwrap()).unwrap();
        }
        instances.with_functions()
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
