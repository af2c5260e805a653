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
MODEL_KIND_UNSPECIFIED: ModelKind
MODEL_KIND_S_CNN: ModelKind
MODEL_KIND_COLLAGE_CNN: ModelKind
MODEL_KIND_PARITY: ModelKind

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "request_id", "attempt")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    image: _tensor_pb2.Tensor
    request_id: str
    attempt: int
    def __init__(self, image: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., request_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("scores", "queue_s", "inference_s")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    scores: _tensor_pb2.Tensor
    queue_s: float
    inference_s: float
    def __init__(self, scores: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., queue_s: _Optional[float] = ..., inference_s: _Optional[float] = ...) -> None: ...

class ClassifyStreamRequest(_message.Message):
    __slots__ = ("call_id", "request", "cancel", "timeout_s")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    request: ClassifyRequest
    cancel: bool
    timeout_s: float
    def __init__(self, call_id: _Optional[int] = ..., request: _Optional[_Union[ClassifyRequest, _Mapping]] = ..., cancel: bool = ..., timeout_s: _Optional[float] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("call_id", "response", "error")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    response: ClassifyResponse
    error: CallError
    def __init__(self, call_id: _Optional[int] = ..., response: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[CallError, _Mapping]] = ...) -> None: ...

class CallError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("collage", "request_id", "attempt")
    COLLAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    collage: _tensor_pb2.Tensor
    request_id: str
    attempt: int
    def __init__(self, collage: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., request_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("boxes", "confidences", "class_probabilities", "queue_s", "inference_s")
    BOXES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCES_FIELD_NUMBER: _ClassVar[int]
    CLASS_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    boxes: _tensor_pb2.Tensor
    confidences: _tensor_pb2.Tensor
    class_probabilities: _tensor_pb2.Tensor
    queue_s: float
    inference_s: float
    def __init__(self, boxes: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., confidences: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., class_probabilities: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., queue_s: _Optional[float] = ..., inference_s: _Optional[float] = ...) -> None: ...

class DetectStreamRequest(_message.Message):
    __slots__ = ("call_id", "request", "cancel", "timeout_s")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    request: DetectRequest
    cancel: bool
    timeout_s: float
    def __init__(self, call_id: _Optional[int] = ..., request: _Optional[_Union[DetectRequest, _Mapping]] = ..., cancel: bool = ..., timeout_s: _Optional[float] = ...) -> None: ...

class DetectStreamResponse(_message.Message):
    __slots__ = ("call_id", "response", "error")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call_id: int
    response: DetectResponse
    error: CallError
    def __init__(self, call_id: _Optional[int] = ..., response: _Optional[_Union[DetectResponse, _Mapping]] = ..., error: _Optional[_Union[CallError, _Mapping]] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("name", "version", "kind", "labels", "size", "k", "detection_threshold", "accept_threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    DETECTION_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    kind: ModelKind
    labels: _containers.RepeatedScalarFieldContainer[str]
    size: int
    k: int
    detection_threshold: float
    accept_threshold: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kind: _Optional[_Union[ModelKind, str]] = ..., labels: _Optional[_Iterable[str]] = ..., size: _Optional[int] = ..., k: _Optional[int] = ..., detection_threshold: _Optional[float] = ..., accept_threshold: _Optional[float] = ...) -> None: ...
