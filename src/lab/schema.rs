//! The part of JSON Schema (draft 2020-12) that the published schemas use, so that what is published is what is checked.

use serde_json::Value;

/// Keywords that say something to readers alone, or that other code checks.
const ANNOTATIONS: [&str; 4] = ["$schema", "title", "description", "format"];

/// Whether `value` is as `schema` says.
///
/// # Errors
/// Which value is not, and why; also a keyword of the schema that is not known here.
pub fn check(schema: &Value, value: &Value) -> Result<(), String> {
    check_at(schema, value, "the document")
}

fn check_at(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(rules) = schema.as_object() else { return Err(format!("the schema of {at} is no object")) };
    rules.iter().try_for_each(|(keyword, rule)| check_keyword(schema, keyword, rule, value, at))
}

fn check_keyword(schema: &Value, keyword: &str, rule: &Value, value: &Value, at: &str) -> Result<(), String> {
    // A keyword about another type than the value's holds, as the standard has it; `type` says which it must be.
    let number = |holds: fn(f64, f64) -> bool| {
        let pair = value.as_f64().zip(rule.as_f64());
        pair.is_none_or(|(value, rule)| holds(value, rule))
    };
    let length = |holds: fn(u64, u64) -> bool| {
        let len = value.as_str().map(|text| text.chars().count()).or_else(|| value.as_array().map(Vec::len));
        len.zip(rule.as_u64()).is_none_or(|(len, rule)| holds(len as u64, rule))
    };
    let holds = match keyword {
        "type" => has_type(rule, value),
        "enum" => rule.as_array().is_some_and(|values| values.contains(value)),
        "minimum" => number(|value, rule| value >= rule),
        "maximum" => number(|value, rule| value <= rule),
        "exclusiveMinimum" => number(|value, rule| value > rule),
        "minItems" | "minLength" => length(|len, rule| len >= rule),
        "maxItems" | "maxLength" => length(|len, rule| len <= rule),
        "required" => return check_required(rule, value, at),
        "properties" => return check_properties(rule, value),
        "additionalProperties" => return check_additional(schema, rule, value, at),
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            return items
                .into_iter()
                .try_for_each(|(idx, item)| check_at(rule, item, &format!("{at}[{idx}]")));
        }
        "oneOf" => {
            let choices = rule.as_array().into_iter().flatten();
            choices.filter(|choice| check_at(choice, value, at).is_ok()).count() == 1
        }
        keyword if ANNOTATIONS.contains(&keyword) => true,
        keyword => return Err(format!("the schema of {at} has the unknown keyword {keyword}")),
    };
    if holds { Ok(()) } else { Err(format!("{at} breaks the rule \"{keyword}\": {rule}")) }
}

fn has_type(rule: &Value, value: &Value) -> bool {
    match rule.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("integer") => value.is_u64() || value.is_i64(),
        _ => false,
    }
}

fn check_required(rule: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(object) = value.as_object() else { return Ok(()) };
    let mut names = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
    names
        .find(|name| !object.contains_key(*name))
        .map_or(Ok(()), |name| Err(format!("{at} has no \"{name}\"")))
}

fn check_properties(rule: &Value, value: &Value) -> Result<(), String> {
    let properties = rule.as_object().into_iter().flatten();
    let mut present = properties.filter_map(|(name, schema)| Some((name, schema, value.get(name)?)));
    present.try_for_each(|(name, schema, value)| check_at(schema, value, &format!("\"{name}\"")))
}

fn check_additional(schema: &Value, rule: &Value, value: &Value, at: &str) -> Result<(), String> {
    if rule != &Value::Bool(false) {
        return Err(format!("the schema of {at} allows additional properties, which is not known here"));
    }
    let known = |name: &str| schema["properties"].get(name).is_some();
    let mut names = value.as_object().into_iter().flat_map(|object| object.keys());
    names
        .find(|name| !known(name))
        .map_or(Ok(()), |name| Err(format!("{at} has the unknown property \"{}\"", name.escape_debug())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_hold_as_the_standard_says() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {
                "a": {"type": "number", "exclusiveMinimum": 0, "maximum": 5},
                "b": {"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 1}},
                "c": {"enum": ["x", "y"]},
                "d": {"type": "string", "maxLength": 2},
            },
            "oneOf": [{"required": ["b"]}, {"required": ["c"]}],
        });
        for good in [json!({"a": 1, "c": "x"}), json!({"a": 0.5, "b": [1, 2], "d": "éé"})] {
            assert_eq!(check(&schema, &good), Ok(()), "{good}");
        }
        for (bad, message) in [
            (json!([]), "\"type\""),
            (json!({"c": "x"}), "no \"a\""),
            (json!({"a": 0, "c": "x"}), "exclusiveMinimum"),
            (json!({"a": 6, "c": "x"}), "maximum"),
            (json!({"a": "1", "c": "x"}), "\"a\" breaks the rule \"type\""),
            (json!({"a": 1, "c": "z"}), "enum"),
            (json!({"a": 1, "b": [1]}), "minItems"),
            (json!({"a": 1, "b": [1, 0]}), "\"b\"[1]"),
            (json!({"a": 1, "b": [1, 1.5]}), "type"),
            (json!({"a": 1, "b": [1, 2], "c": "x"}), "oneOf"),
            (json!({"a": 1}), "oneOf"),
            (json!({"a": 1, "c": "x", "d": "abc"}), "maxLength"),
            (json!({"a": 1, "c": "x", "e": 1}), "unknown property \"e\""),
        ] {
            let error = check(&schema, &bad).unwrap_err();
            assert!(error.contains(message), "{bad}: {error}");
        }
        assert!(check(&json!({"pattern": "x"}), &json!("y")).is_err(), "what is not checked is not passed");
    }
}
