use super::*;

struct Named(&'static str, &'static [&'static str]);

#[async_trait]
impl Initializer for Named {
    fn name(&self) -> &'static str {
        self.0
    }

    fn after(&self) -> &'static [&'static str] {
        self.1
    }
}

fn order(given: &[(&'static str, &'static [&'static str])]) -> Result<Vec<&'static str>, OrderError> {
    let given: Vec<Arc<dyn Initializer>> =
        given.iter().map(|(name, after)| Arc::new(Named(name, after)) as _).collect();
    Ok(in_order(&given)?.iter().map(|initializer| initializer.name()).collect())
}

#[test]
fn each_comes_after_those_it_names_and_else_as_given() {
    assert_eq!(order(&[]).unwrap(), [""; 0]);
    assert_eq!(order(&[("b", &[]), ("a", &[])]).unwrap(), ["b", "a"]);
    assert_eq!(order(&[("web", &["db", "cache"]), ("cache", &["db"]), ("db", &[])]).unwrap(), ["db", "cache", "web"]);
}

#[test]
fn an_impossible_order_names_its_initializers() {
    assert_eq!(order(&[("a", &[]), ("a", &[])]), Err(OrderError::Doubled("a")));
    assert_eq!(order(&[("a", &["b"])]), Err(OrderError::Unknown("a", "b")));
    assert_eq!(order(&[("a", &["a"])]), Err(OrderError::Cycle("a".into())));
    let cycle = order(&[("free", &[]), ("a", &["b"]), ("b", &["a"])]);
    assert_eq!(cycle, Err(OrderError::Cycle("a, b".into())));
}
