//! The lenient deserializer: text is parsed as the requested type, JSON keeps its types.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde_json::Value;

use super::Field;
use super::upload::TOKEN;
use super::value::ParamValue;
use super::whole;

/// A value of another type than requested. It drops serde's message, which may quote the value.
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

/// Decodes one param, or all fields of a call.
#[derive(Clone, Copy)]
pub(super) enum ParamDeserializer<'a> {
    Fields(&'a [Field]),
    Param(&'a ParamValue),
}

impl<'a> ParamDeserializer<'a> {
    pub(super) fn fields(fields: &'a [Field]) -> Self {
        Self::Fields(fields)
    }

    pub(super) fn param(value: &'a ParamValue) -> Self {
        Self::Param(value)
    }

    fn map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Fields(fields) => {
                let entries = fields.iter().map(|field| (field.name.as_str(), Self::Param(&field.value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Self::Param(ParamValue::Map(entries)) => {
                let entries = entries.iter().map(|(name, value)| (name.as_str(), Self::Param(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
            Self::Param(_) => Err(Mismatch),
        }
    }

    fn text(self) -> Result<&'a str, Mismatch> {
        match self {
            Self::Param(ParamValue::Text(text)) => Ok(text),
            _ => Err(Mismatch),
        }
    }

    fn json(self) -> Option<&'a Value> {
        match self {
            Self::Param(ParamValue::Json(value)) => Some(value),
            _ => None,
        }
    }
}

/// Parses the text of a `bool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "on" | "yes" => Some(true),
        "false" | "0" | "off" | "no" => Some(false),
        _ => None,
    }
}

/// Forwards JSON to serde_json, parses text; `1.0` and `1e0` are whole numbers too.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.json() {
                Some(value) => Ok(value.$method(visitor)?),
                None => {
                    let text = self.text()?.trim();
                    let whole = || <$type>::try_from(whole::parse_integer(text)?).ok();
                    visitor.$visit(text.parse::<$type>().ok().or_else(whole).ok_or(Mismatch)?)
                }
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

impl<'de> Deserializer<'de> for ParamDeserializer<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Param(ParamValue::Json(value)) => Ok(value.deserialize_any(visitor)?),
            Self::Param(ParamValue::Text(text)) => visitor.visit_str(text),
            Self::Param(ParamValue::List(_)) => self.deserialize_seq(visitor),
            Self::Param(ParamValue::File(_)) => Err(Mismatch),
            Self::Fields(_) | Self::Param(ParamValue::Map(_)) => self.map(visitor),
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
            Self::Param(ParamValue::Json(value)) => Ok(value.deserialize_option(visitor)?),
            Self::Param(ParamValue::Text(text)) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Param(ParamValue::Json(value)) => Ok(value.deserialize_unit(visitor)?),
            Self::Param(ParamValue::Text(text)) if text.is_empty() => visitor.visit_unit(),
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
        let Self::Param(ParamValue::File(file)) = self else { return Err(Mismatch) };
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
            Self::Param(ParamValue::Json(value)) => Ok(value.deserialize_seq(visitor)?),
            Self::Param(ParamValue::List(list)) => {
                visitor.visit_seq(SeqDeserializer::new(list.iter().map(Self::Param)))
            }
            Self::Param(ParamValue::Map(entries)) => {
                let list = ParamValue::numbered(entries).ok_or(Mismatch)?;
                visitor.visit_seq(SeqDeserializer::new(list.into_iter().map(Self::Param)))
            }
            Self::Param(ParamValue::Text(_) | ParamValue::File(_)) => {
                visitor.visit_seq(SeqDeserializer::new(std::iter::once(self)))
            }
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
            Self::Param(ParamValue::Json(value)) => Ok(value.deserialize_enum(name, variants, visitor)?),
            Self::Param(ParamValue::Text(text)) => visitor.visit_enum(text.as_str().into_deserializer()),
            Self::Param(ParamValue::Map(entries)) => match &entries[..] {
                [(name, content)] => visitor.visit_enum(EnumVariant { name, content }),
                _ => Err(Mismatch),
            },
            Self::Param(ParamValue::List(_) | ParamValue::File(_)) => Err(Mismatch),
            // Undeclared fields may stand beside the variant.
            Self::Fields(fields) => {
                let mut declared = fields.iter().filter(|field| variants.contains(&field.name.as_str()));
                match (declared.next(), declared.next()) {
                    (Some(Field { name, value, .. }), None) => visitor.visit_enum(EnumVariant { name, content: value }),
                    _ => Err(Mismatch),
                }
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }
}

impl<'de> IntoDeserializer<'de, Mismatch> for ParamDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// An enum's variant with content: `shape[circle]=2`.
struct EnumVariant<'a> {
    name: &'a str,
    content: &'a ParamValue,
}

impl<'de> EnumAccess<'de> for EnumVariant<'de> {
    type Error = Mismatch;
    type Variant = ParamDeserializer<'de>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, ParamDeserializer<'de>), Mismatch> {
        let name: de::value::StrDeserializer<'_, Mismatch> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, ParamDeserializer::Param(self.content)))
    }
}

impl<'de> VariantAccess<'de> for ParamDeserializer<'de> {
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
