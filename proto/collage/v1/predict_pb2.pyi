from collage.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_S_CNN: _ClassVar[Source]
    SOURCE_COLLAGE: _ClassVar[Source]
    SOURCE_REPLICA: _ClassVar[Source]
    SOURCE_PARITY: _ClassVar[Source]
    SOURCE_DEFAULT: _ClassVar[Source]
    SOURCE_CODED: _ClassVar[Source]
SOURCE_UNSPECIFIED: Source
SOURCE_S_CNN: Source
SOURCE_COLLAGE: Source
SOURCE_REPLICA: Source
SOURCE_PARITY: Source
SOURCE_DEFAULT: Source
SOURCE_CODED: Source

class PredictRequest(_message.Message):
    __slots__ = ("image", "tensor", "top_k", "request_id", "with_output")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    tensor: _tensor_pb2.Tensor
    top_k: int
    request_id: str
    with_output: bool
    def __init__(self, image: _Optional[bytes] = ..., tensor: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., top_k: _Optional[int] = ..., request_id: _Optional[str] = ..., with_output: bool = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("classes", "provenance", "box", "output")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[Classification]
    provenance: Provenance
    box: Box
    output: _tensor_pb2.Tensor
    def __init__(self, classes: _Optional[_Iterable[_Union[Classification, _Mapping]]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., output: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Classification(_message.Message):
    __slots__ = ("label", "index", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    probability: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("source", "degraded", "coded_confidence", "group_id", "cell", "model_name", "model_version", "queue_s", "inference_s", "total_s", "request_id")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    CODED_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    source: Source
    degraded: bool
    coded_confidence: float
    group_id: str
    cell: int
    model_name: str
    model_version: str
    queue_s: float
    inference_s: float
    total_s: float
    request_id: str
    def __init__(self, source: _Optional[_Union[Source, str]] = ..., degraded: bool = ..., coded_confidence: _Optional[float] = ..., group_id: _Optional[str] = ..., cell: _Optional[int] = ..., model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., queue_s: _Optional[float] = ..., inference_s: _Optional[float] = ..., total_s: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class PredictStreamRequest(_message.Message):
    __slots__ = ("request", "timeout_s")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    request: PredictRequest
    timeout_s: float
    def __init__(self, request: _Optional[_Union[PredictRequest, _Mapping]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: PredictResponse
    error: PredictError
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[_Union[PredictResponse, _Mapping]] = ..., error: _Optional[_Union[PredictError, _Mapping]] = ...) -> None: ...

class PredictError(_message.Message):
    __slots__ = ("code", "message", "retry_after_s")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    retry_after_s: float
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_s: _Optional[float] = ...) -> None: ...
