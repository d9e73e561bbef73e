//! The lenient deserializer: text is parsed by the type that asks for it, JSON keeps its types.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde_json::Value;

use super::Field;
use super::upload::TOKEN;
use super::value::Tree;

/// What went wrong; the words are for nobody, since they may hold the value.
#[derive(Debug)]
pub(super) struct Mismatch;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value has another type")
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl From<serde_json::Error> for Mismatch {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// Decodes one tree, or the fields of a call.
#[derive(Clone, Copy)]
pub(super) enum Decoder<'a> {
    Fields(&'a [Field]),
    Tree(&'a Tree),
}

impl<'a> Decoder<'a> {
    pub(super) fn fields(fields: &'a [Field]) -> Self {
        Self::Fields(fields)
    }

    fn map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Fields(fields) => {
                let entries = fields.iter().map(|field| (field.name.as_str(), Self::Tree(&field.value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Self::Tree(Tree::Map(entries)) => {
                let entries = entries.iter().map(|(name, tree)| (name.as_str(), Self::Tree(tree)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Self::Tree(_) => Err(Mismatch),
        }
    }

    fn text(self) -> Result<&'a str, Mismatch> {
        match self {
            Self::Tree(Tree::Text(text)) => Ok(text),
            _ => Err(Mismatch),
        }
    }

    fn json(self) -> Option<&'a Value> {
        match self {
            Self::Tree(Tree::Json(value)) => Some(value),
            _ => None,
        }
    }
}

/// The text of a `bool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// Forwards JSON to serde_json, and parses text.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.json() {
                Some(value) => Ok(value.$method(visitor)?),
                None => visitor.$visit(self.text()?.trim().parse::<$type>().map_err(|_| Mismatch)?),
            }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.json() {
                Some(value) => Ok(value.$method(visitor)?),
                None => match self.text()?.trim().parse::<$type>() {
                    Ok(number) if number.is_finite() => visitor.$visit(number),
                    _ => Err(Mismatch),
                },
            }
        }
    )*};
}

macro_rules! strings {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.json() {
                Some(value) => Ok(value.$method(visitor)?),
                None => visitor.visit_str(self.text()?),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Tree(Tree::Json(value)) => Ok(value.deserialize_any(visitor)?),
            Self::Tree(Tree::Text(text)) => visitor.visit_str(text),
            Self::Tree(Tree::List(_)) => self.deserialize_seq(visitor),
            Self::Tree(Tree::File(_)) => Err(Mismatch),
            Self::Fields(_) | Self::Tree(Tree::Map(_)) => self.map(visitor),
        }
    }

    numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128
    );

    floats!(deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64);

    strings!(deserialize_str deserialize_string deserialize_char deserialize_identifier deserialize_bytes deserialize_byte_buf);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.json() {
            Some(value) => Ok(value.deserialize_bool(visitor)?),
            None => visitor.visit_bool(parse_bool(self.text()?.trim()).ok_or(Mismatch)?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Tree(Tree::Json(value)) => Ok(value.deserialize_option(visitor)?),
            Self::Tree(Tree::Text(text)) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Tree(Tree::Json(value)) => Ok(value.deserialize_unit(visitor)?),
            Self::Tree(Tree::Text(text)) if text.is_empty() => visitor.visit_unit(),
            _ => Err(Mismatch),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Mismatch> {
        if name != TOKEN {
            return visitor.visit_newtype_struct(self);
        }
        let Self::Tree(Tree::File(file)) = self else { return Err(Mismatch) };
        let path = file.path().to_string_lossy().into_owned();
        let entries = [
            ("path", path),
            ("name", file.name().to_owned()),
            ("content_type", file.content_type().to_owned()),
            ("size", file.size().to_string()),
        ];
        visitor.visit_map(MapDeserializer::new(entries.into_iter()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Tree(Tree::Json(value)) => Ok(value.deserialize_seq(visitor)?),
            Self::Tree(Tree::List(list)) => visitor.visit_seq(SeqDeserializer::new(list.iter().map(Self::Tree))),
            Self::Tree(Tree::Map(entries)) => {
                let list = Tree::numbered(entries).ok_or(Mismatch)?;
                visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Self::Tree)))
            }
            Self::Tree(Tree::Text(_) | Tree::File(_)) => visitor.visit_seq(SeqDeserializer::new(std::iter::once(self))),
            Self::Fields(_) => Err(Mismatch),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.json() {
            Some(value) => Ok(value.deserialize_map(visitor)?),
            None => self.map(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.json() {
            Some(value) => Ok(value.deserialize_struct(name, fields, visitor)?),
            None => self.map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self {
            Self::Tree(Tree::Json(value)) => Ok(value.deserialize_enum(name, variants, visitor)?),
            Self::Tree(Tree::Text(text)) => visitor.visit_enum(text.as_str().into_deserializer()),
            Self::Tree(Tree::Map(entries)) => match &entries[..] {
                [(name, content)] => visitor.visit_enum(Variant { name, content }),
                _ => Err(Mismatch),
            },
            Self::Tree(Tree::List(_) | Tree::File(_)) => Err(Mismatch),
            // Beside the variant may be what is undeclared.
            Self::Fields(fields) => {
                let mut declared = fields.iter().filter(|field| variants.contains(&field.name.as_str()));
                match (declared.next(), declared.next()) {
                    (Some(Field { name, value, .. }), None) => visitor.visit_enum(Variant { name, content: value }),
                    _ => Err(Mismatch),
                }
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for Decoder<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// An enum's variant with content: `shape[circle]=2`.
struct Variant<'a> {
    name: &'a str,
    content: &'a Tree,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Mismatch;
    type Variant = Decoder<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Decoder<'de>), Mismatch> {
        let name: de::value::StrDeserializer<'_, Mismatch> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Decoder::Tree(self.content)))
    }
}

impl<'de> VariantAccess<'de> for Decoder<'de> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mismatch> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_map(visitor)
    }
}
