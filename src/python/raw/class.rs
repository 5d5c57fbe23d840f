//! Types that applications see, made for each interpreter.

use super::guard;
use super::object::{Kept, Object, Raised};
use super::thread::{Attached, raise_panic};
use core::ffi::{CStr, c_int, c_uint, c_void};
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::null_mut;
use pyo3_ffi as py;

/// A Rust type whose values can live in Python objects.
pub trait Class: Send + Sync + Sized + 'static {
    /// Module and name, as `repr` shows them.
    const NAME: &'static CStr;
    /// Its methods; the last is [`Method::END`].
    const METHODS: &'static [Method<Self>];
    /// Its properties; the last is [`Getter::END`].
    const GETTERS: &'static [Getter] = &[Getter::END];
    /// What `__next__` does, for a type that is its own iterator.
    const NEXT: Option<Next> = None;
}

/// A positional argument list, borrowed for a call.
#[derive(Clone, Copy)]
pub struct Args<'a, 'p> {
    items: &'a [*mut py::PyObject],
    py: Attached<'p>,
}

impl<'p> Args<'_, 'p> {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// The argument `at`.
    pub fn get(&self, at: usize) -> Option<Object<'p>> {
        // SAFETY: the caller's arguments live until the call returns.
        unsafe { Object::from_borrowed(self.py, *self.items.get(at)?) }
    }

    /// The proof.
    pub const fn py(&self) -> Attached<'p> {
        self.py
    }
}

/// The object a method was called on, borrowed for the call.
pub struct This<'a, 'p, T> {
    value: &'a T,
    object: *mut py::PyObject,
    py: Attached<'p>,
}

impl<T> Deref for This<'_, '_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<'p, T: Class> This<'_, 'p, T> {
    /// `method` bound to this object.
    pub fn bind(&self, method: &'static Method<T>) -> Result<Object<'p>, Raised> {
        // SAFETY: the object lives until the call returns.
        let object = unsafe { Object::from_borrowed(self.py, self.object) };
        object.map_or_else(|| Err(Raised::seen()), |object| bind(&object, method))
    }
}

/// `method` bound to `object`, an instance of T's class.
fn bind<'p, T>(object: &Object<'p>, method: &'static Method<T>) -> Result<Object<'p>, Raised> {
    let definition = (&raw const method.0).cast_mut();
    // SAFETY: attached; a static row whose function takes such an object.
    let bound = unsafe { py::PyCFunction_NewEx(definition, object.as_ptr(), null_mut()) };
    // SAFETY: a new reference or null with an exception.
    unsafe { Object::new(object.py(), bound) }
}

/// A row of the method table of `T`.
#[repr(transparent)]
pub struct Method<T>(py::PyMethodDef, PhantomData<fn(T)>);

// SAFETY: CPython only reads a method table; the pointers are to statics.
unsafe impl<T> Sync for Method<T> {}

impl<T: Class> Method<T> {
    /// The end of a table.
    pub const END: Self = Self(py::PyMethodDef::zeroed(), PhantomData);

    /// The row of method `name`, which `_body`, a plain function, serves.
    pub const fn new<F>(name: &'static CStr, _body: F) -> Self
    where
        F: Body<T>,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        let row = py::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: py::PyMethodDefPointer { PyCFunctionFast: call::<T, F> },
            ml_flags: py::METH_FASTCALL,
            ml_doc: core::ptr::null(),
        };
        Self(row, PhantomData)
    }
}

/// What a method of `T` may be.
pub trait Body<T>:
    for<'a, 'p> Fn(This<'a, 'p, T>, Args<'a, 'p>) -> Result<Object<'p>, Raised> + Copy + 'static
{
}

impl<T, F> Body<T> for F where
    F: for<'a, 'p> Fn(This<'a, 'p, T>, Args<'a, 'p>) -> Result<Object<'p>, Raised> + Copy + 'static
{
}

/// # Safety
///
/// For CPython only, through a row of [`Method`].
unsafe extern "C" fn call<T: Class, F: Body<T>>(
    this: *mut py::PyObject,
    args: *mut *mut py::PyObject,
    count: py::Py_ssize_t,
) -> *mut py::PyObject {
    let answer = guard(None, || {
        // SAFETY: CPython calls attached.
        let py = unsafe { Attached::assume() };
        let items = match usize::try_from(count) {
            Ok(0) | Err(_) => &[],
            // SAFETY: CPython passes `count` arguments that live until we return.
            Ok(count) => unsafe { core::slice::from_raw_parts(args, count) },
        };
        // SAFETY: `Method::new` checked that F has no contents.
        let body = unsafe { core::mem::MaybeUninit::<F>::zeroed().assume_init() };
        // SAFETY: CPython checks that `this` is of the type the table belongs to.
        let value = unsafe { Instance::<T>::value(this) };
        let this = This { value, object: this, py };
        Some(body(this, Args { items, py }).map_or(null_mut(), Object::into_ptr))
    });
    answer.unwrap_or_else(raise_panic)
}

/// A row of a property table.
#[repr(transparent)]
pub struct Getter(py::PyGetSetDef);

// SAFETY: CPython only reads the table; the pointers are to statics.
unsafe impl Sync for Getter {}

impl Getter {
    /// The end of a table.
    pub const END: Self = Self(py::PyGetSetDef {
        name: core::ptr::null(),
        get: None,
        set: None,
        doc: core::ptr::null(),
        closure: null_mut(),
    });

    /// The row of property `name`, which `_body`, a plain function, serves.
    pub const fn new<T: Class, F>(name: &'static CStr, _body: F) -> Self
    where
        F: for<'p> Fn(&T, Attached<'p>) -> Result<Object<'p>, Raised> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a getter is a plain function") };
        Self(py::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get::<T, F>),
            set: None,
            doc: core::ptr::null(),
            closure: null_mut(),
        })
    }
}

/// # Safety
///
/// For CPython only, through a row of [`Getter`].
unsafe extern "C" fn get<T: Class, F>(
    this: *mut py::PyObject,
    _closure: *mut c_void,
) -> *mut py::PyObject
where
    F: for<'p> Fn(&T, Attached<'p>) -> Result<Object<'p>, Raised> + Copy + 'static,
{
    let answer = guard(None, || {
        // SAFETY: CPython calls attached.
        let py = unsafe { Attached::assume() };
        // SAFETY: `Getter::new` checked that F has no contents.
        let body = unsafe { core::mem::MaybeUninit::<F>::zeroed().assume_init() };
        // SAFETY: CPython checks that `this` is of the type the table belongs to.
        let value = unsafe { Instance::<T>::value(this) };
        Some(body(value, py).map_or(null_mut(), Object::into_ptr))
    });
    answer.unwrap_or_else(raise_panic)
}

/// What serves `__next__`.
#[derive(Clone, Copy)]
pub struct Next(py::iternextfunc);

impl Next {
    /// `__next__` by `_body`, a plain function; None ends the iteration.
    pub const fn new<T: Class, F>(_body: F) -> Self
    where
        F: for<'p> Fn(&T, Attached<'p>) -> Result<Option<Object<'p>>, Raised> + Copy + 'static,
    {
        const { assert!(size_of::<F>() == 0, "a method is a plain function") };
        Self(next::<T, F>)
    }
}

/// # Safety
///
/// For CPython only, through the slot [`Next`] fills.
unsafe extern "C" fn next<T: Class, F>(this: *mut py::PyObject) -> *mut py::PyObject
where
    F: for<'p> Fn(&T, Attached<'p>) -> Result<Option<Object<'p>>, Raised> + Copy + 'static,
{
    let answer = guard(None, || {
        // SAFETY: CPython calls attached.
        let py = unsafe { Attached::assume() };
        // SAFETY: `Next::new` checked that F has no contents.
        let body = unsafe { core::mem::MaybeUninit::<F>::zeroed().assume_init() };
        // SAFETY: CPython checks that `this` is of the type the slot belongs to.
        let value = unsafe { Instance::<T>::value(this) };
        // Null without an exception ends an iteration.
        Some(body(value, py).map_or(null_mut(), |item| item.map_or(null_mut(), Object::into_ptr)))
    });
    answer.unwrap_or_else(raise_panic)
}

/// A Python object with a Rust value in it.
#[repr(C)]
struct Instance<T> {
    base: py::PyObject,
    value: T,
}

impl<T: Class> Instance<T> {
    /// # Safety
    ///
    /// `this` is an instance [`ClassOf::instance`] made, alive during the call.
    unsafe fn value<'a>(this: *mut py::PyObject) -> &'a T {
        // SAFETY: the caller's promise; the value is never moved nor borrowed mutably.
        unsafe { &(*this.cast::<Self>()).value }
    }
}

/// # Safety
///
/// For CPython only, when the last reference to an instance is gone.
unsafe extern "C" fn free<T: Class>(this: *mut py::PyObject) {
    // SAFETY: the object is whole until we free it; its type is on the heap.
    let class = unsafe { py::Py_TYPE(this) };
    guard((), || {
        // SAFETY: made by `ClassOf::instance`; nobody can reach it any more.
        let value = unsafe { &raw mut (*this.cast::<Instance<T>>()).value };
        // SAFETY: written once by `ClassOf::instance`, dropped once, here.
        unsafe { core::ptr::drop_in_place(value) };
    });
    // SAFETY: allocated by `PyType_GenericAlloc` for a type without GC.
    unsafe { py::PyObject_Free(this.cast()) };
    // SAFETY: every instance of a heap type holds a reference to it.
    unsafe { py::Py_DECREF(class.cast()) };
}

/// The type of `T` in one interpreter.
#[derive(Debug)]
pub struct ClassOf<T> {
    class: Kept,
    _values: PhantomData<fn() -> T>,
}

impl<T: Class> ClassOf<T> {
    /// Makes the type.
    pub fn new(py: Attached<'_>) -> Result<Self, Raised> {
        let slot = |slot: c_int, pfunc: *mut c_void| py::PyType_Slot { slot, pfunc };
        let mut slots = vec![
            slot(py::Py_tp_dealloc, free::<T> as *mut c_void),
            slot(py::Py_tp_methods, T::METHODS.as_ptr().cast_mut().cast()),
            slot(py::Py_tp_getset, T::GETTERS.as_ptr().cast_mut().cast()),
        ];
        if let Some(next) = T::NEXT {
            slots.push(slot(py::Py_tp_iter, py::PyObject_SelfIter as *mut c_void));
            slots.push(slot(py::Py_tp_iternext, next.0 as *mut c_void));
        }
        slots.push(py::PyType_Slot::default());
        let mut spec = py::PyType_Spec {
            name: T::NAME.as_ptr(),
            basicsize: size_of::<Instance<T>>() as c_int,
            itemsize: 0,
            flags: (py::Py_TPFLAGS_DEFAULT | py::Py_TPFLAGS_DISALLOW_INSTANTIATION) as c_uint,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: attached; CPython copies the slots, the tables they name are static.
        let class = unsafe { py::PyType_FromSpec(&raw mut spec) };
        // SAFETY: a new reference or null with an exception.
        let class = unsafe { Object::new(py, class) }?;
        Ok(Self { class: class.keep(), _values: PhantomData })
    }

    /// A new object around `value`.
    pub fn instance<'p>(&self, py: Attached<'p>, value: T) -> Result<Instantiated<'p, T>, Raised> {
        let class = self.class.lend(py).as_ptr();
        // SAFETY: attached; a type made by `new`.
        let object = unsafe { py::PyType_GenericAlloc(class.cast(), 0) };
        if object.is_null() {
            return Err(Raised::seen());
        }
        // SAFETY: room for an `Instance<T>`, by the type's basic size.
        let place = unsafe { &raw mut (*object.cast::<Instance<T>>()).value };
        // SAFETY: zeroed memory nobody else knows; dropped by `free`.
        unsafe { place.write(value) };
        // SAFETY: a new reference.
        Ok(Instantiated(unsafe { Object::new(py, object) }?, PhantomData))
    }

    /// `method` bound to `object`, an instance of this class.
    pub fn bind<'p>(
        &self,
        object: &Instantiated<'p, T>,
        method: &'static Method<T>,
    ) -> Result<Object<'p>, Raised> {
        bind(&object.0, method)
    }
}

/// An [`Instantiated`] kept beyond an attachment, as [`Kept`] keeps an object.
#[derive(Debug)]
pub struct KeptInstance<T>(Kept, PhantomData<fn() -> T>);

impl<T> KeptInstance<T> {
    /// Gives the reference back, to who is attached to its interpreter.
    pub fn take(self, py: Attached<'_>) -> Instantiated<'_, T> {
        Instantiated(self.0.take(py), PhantomData)
    }
}

impl<T: Class> Deref for Instantiated<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: made by `ClassOf::instance` for T; our reference keeps it alive.
        unsafe { Instance::<T>::value(self.0.as_ptr()) }
    }
}

/// An object [`ClassOf::instance`] made.
pub struct Instantiated<'p, T>(Object<'p>, PhantomData<fn() -> T>);

impl<'p, T> Instantiated<'p, T> {
    /// The object.
    pub fn into_object(self) -> Object<'p> {
        self.0
    }

    /// The object, borrowed.
    pub const fn object(&self) -> &Object<'p> {
        &self.0
    }

    /// Keeps it beyond this attachment.
    pub fn keep(self) -> KeptInstance<T> {
        KeptInstance(self.0.keep(), PhantomData)
    }
}
