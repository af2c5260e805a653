from collage.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_KIND_UNSPECIFIED: _ClassVar[ModelKind]
    MODEL_KIND_S_CNN: _ClassVar[ModelKind]
    MODEL_KIND_COLLAGE_CNN: _ClassVar[ModelKind]
    MODEL_KIND_PARITY: _ClassVar[ModelKind]

class ModelTask(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_TASK_UNSPECIFIED: _ClassVar[ModelTask]
    MODEL_TASK_CLASSIFICATION: _ClassVar[ModelTask]
    MODEL_TASK_LOCALISATION: _ClassVar[ModelTask]
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_S_CNN: ModelKind
MODEL_KIND_COLLAGE_CNN: ModelKind
MODEL_KIND_PARITY: ModelKind
MODEL_TASK_UNSPECIFIED: ModelTask
MODEL_TASK_CLASSIFICATION: ModelTask
MODEL_TASK_LOCALISATION: ModelTask

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("name", "version", "kind", "task", "labels", "input", "outputs", "code", "accept_threshold", "errors", "provider")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    kind: ModelKind
    task: ModelTask
    labels: _containers.RepeatedScalarFieldContainer[str]
    input: TensorSpec
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    code: Code
    accept_threshold: float
    errors: _containers.RepeatedCompositeFieldContainer[ErrorRate]
    provider: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., task: _Optional[_Union[ModelTask, str]] = ..., labels: _Optional[_Iterable[str]] = ..., input: _Optional[_Union[TensorSpec, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., code: _Optional[_Union[Code, _Mapping]] = ..., accept_threshold: _Optional[float] = ..., errors: _Optional[_Iterable[_Union[ErrorRate, _Mapping]]] = ..., provider: _Optional[str] = ...) -> None: ...

class ErrorRate(_message.Message):
    __slots__ = ("confidence", "errors", "standard_error", "differs")
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    DIFFERS_FIELD_NUMBER: _ClassVar[int]
    confidence: float
    errors: float
    standard_error: float
    differs: float
    def __init__(self, confidence: _Optional[float] = ..., errors: _Optional[float] = ..., standard_error: _Optional[float] = ..., differs: _Optional[float] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "data_type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    data_type: _tensor_pb2.DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., data_type: _Optional[_Union[_tensor_pb2.DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Code(_message.Message):
    __slots__ = ("name", "members", "inputs", "row", "k", "weights", "detection_threshold", "base", "heads", "stacked", "keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    ROW_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DETECTION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    STACKED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    members: int
    inputs: int
    row: int
    k: int
    weights: _containers.RepeatedScalarFieldContainer[float]
    detection_threshold: float
    base: str
    heads: bool
    stacked: bool
    keys: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., members: _Optional[int] = ..., inputs: _Optional[int] = ..., row: _Optional[int] = ..., k: _Optional[int] = ..., weights: _Optional[_Iterable[float]] = ..., detection_threshold: _Optional[float] = ..., base: _Optional[str] = ..., heads: bool = ..., stacked: bool = ..., keys: _Optional[_Iterable[int]] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("input", "request_id", "attempt", "traceparent")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    input: _tensor_pb2.Tensor
    request_id: str
    attempt: int
    traceparent: str
    def __init__(self, input: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., request_id: _Optional[str] = ..., attempt: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class RunResponse(_message.Message):
    __slots__ = ("outputs", "queue_s", "inference_s")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    outputs: _containers.RepeatedCompositeFieldContainer[_tensor_pb2.Tensor]
    queue_s: float
    inference_s: float
    def __init__(self, outputs: _Optional[_Iterable[_Union[_tensor_pb2.Tensor, _Mapping]]] = ..., queue_s: _Optional[float] = ..., inference_s: _Optional[float] = ...) -> None: ...

class RunStreamRequest(_message.Message):
    __slots__ = ("call_id", "request", "cancel", "timeout_s")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    request: RunRequest
    cancel: bool
    timeout_s: float
    def __init__(self, call_id: _Optional[int] = ..., request: _Optional[_Union[RunRequest, _Mapping]] = ..., cancel: bool = ..., timeout_s: _Optional[float] = ...) -> None: ...

class RunStreamResponse(_message.Message):
    __slots__ = ("call_id", "response", "error")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    response: RunResponse
    error: CallError
    def __init__(self, call_id: _Optional[int] = ..., response: _Optional[_Union[RunResponse, _Mapping]] = ..., error: _Optional[_Union[CallError, _Mapping]] = ...) -> None: ...

class CallError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
